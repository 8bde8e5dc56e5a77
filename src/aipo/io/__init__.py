"""Files: pictures, tensors, measurements."""
