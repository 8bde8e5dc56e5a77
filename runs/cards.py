"""What the bundled priors' cards tell of typical pictures, measured on pictures held out of their training.

    python runs/cards.py HELD_OUT_FACES_TAR PHOTOS_FOLDER FASHION_TRAIN_IDX

It measures what `aipo train` measures for a new prior, on held-out pictures that no table judges: faces from
number 606 of the tar on, the last 20 photographs, and the first half of the last 1,000 garments of the
training file. It rewrites config.json of every bundled prior; model.safetensors stays as it is, byte by byte.
"""

import argparse

import numpy as np

from aipo.flows.training.data import PictureData, load_pictures
from aipo.priors import bundled_priors, load_prior
from aipo.priors.fit import of_sizes
from aipo.priors.typicality import fit_typicality


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("faces", "photos", "fashion"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    pictures: dict[str, list[np.ndarray]] = {
        "faces64": load_pictures(arguments.faces)[606:],
        "photos": load_pictures(arguments.photos)[-20:],
        "fashion28": load_pictures(arguments.fashion)[-1000:-500],
    }
    for name, folder in bundled_priors().items():
        prior = load_prior(name)
        trained = prior.card["training"]
        held_out = PictureData(pictures[name], trained["crop"], trained["flips"])
        told = fit_typicality(prior.energies, of_sizes(held_out, prior.shape[1] is None))
        prior.card["typicality"] = told.card()
        prior.save(folder)


if __name__ == "__main__":
    main()
