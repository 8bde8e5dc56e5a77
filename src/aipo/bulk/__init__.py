"""Many pictures: one commit protocol, and engines that run the work."""
