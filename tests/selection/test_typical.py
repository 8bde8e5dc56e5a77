"""A result says if its picture is unlike those that the prior was trained on."""

import pytest
import torch
from closed_form import gaussian_prior
from torch import Tensor

from aipo import load_prior
from aipo.cli.record import restore
from aipo.cli.report import table
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, block_mask
from aipo.path.options import PathOptions
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.typical import LEFT, UNKNOWN, untypical_sentence

SHAPE = (1, 28, 28)
QUICK = PathOptions((1.0,), evaluations=8)


def board(side: int) -> Tensor:
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    return 0.1 + 0.8 * ((rows // 4 + columns // 4) % 2).expand(1, 1, -1, -1).float()


def restored(operator: LinearOperator, x: Tensor, sigma: float = 0.05):
    likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(0))
    return reconstruct(likelihood, load_prior("fashion28"), 1.0, QUICK)


OPERATORS = {
    "denoising": Identity(SHAPE),
    "inpainting": block_mask(SHAPE, 9),
    "sensing": GaussianSensing(SHAPE, 500, seed=0),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_chessboard_is_no_garment(operator):
    result = restored(operator, board(28))
    assert result.untypical is not None and float(result.untypical) > 3
    (sentence,) = result.remarks
    assert sentence.startswith("The picture is unlike anything")
    assert f"{float(result.untypical):.1f} standard deviations" in sentence


@pytest.mark.parametrize(
    ("far", "said"), [(3.0, None), (4.0, "unusual for the prior"), (6.0, "unlike anything")]
)
def test_the_sentence_is_as_strong_as_the_finding(far, said):
    likelihood = measure(Identity(SHAPE), torch.full((1, *SHAPE), 0.5), 0.1)
    found = untypical_sentence(likelihood, Asked(), likelihood.y, torch.tensor([far]))
    assert (found == []) == (said is None)
    assert said is None or (said in found[0] and f"{far:.1f} standard deviations" in found[0])


def test_of_a_batch_the_untypical_ones_are_counted():
    own = load_prior("fashion28").sample(3, temperature=0.9).clamp(0, 1)
    result = restored(Identity(SHAPE), torch.cat((own, board(28))))
    assert result.untypical is not None and float(result.untypical[3]) > 3
    count = int((result.untypical > 3).sum())
    assert result.remarks[0].startswith(f"{count} of 4 pictures are")


def test_a_prior_that_cannot_tell_says_nothing():
    operator, prior = Identity((2, 3, 4)), gaussian_prior()
    result = reconstruct(measure(operator, prior.mean[None].double(), 0.1), prior, 1.0, QUICK)
    assert result.untypical is None and result.remarks == []


class Asked:
    """A prior that writes down which error of the picture it is asked about."""

    def __init__(self):
        self.errors: list[Tensor] = []

    def energy(self, x: Tensor) -> Tensor:
        return 2 * (x - 0.5).square().flatten(1).sum(1)

    def untypical(self, x: Tensor, error: Tensor) -> Tensor:
        self.errors.append(error)
        return torch.zeros_like(error)


def test_the_noise_tells_the_error_only_where_entries_were_measured():
    x, errors = torch.full((2, *SHAPE), 0.5), []
    for operator in (Identity(SHAPE), GaussianSensing(SHAPE, 500, seed=0)):
        prior = Asked()
        reconstruct(measure(operator, x, 0.3), prior, 1.0, QUICK).remarks
        errors.append(prior.errors[0].tolist())
    assert errors == [[pytest.approx(LEFT * 0.3)] * 2, [pytest.approx(UNKNOWN)] * 2]


def test_the_sentence_names_a_prior_that_knows_such_pictures():
    x = load_prior("photos").sample(1, (64, 64), temperature=0.7).clamp(0, 1)
    x = (x - x.mean()) * 3 + 0.5  # a photograph of strong contrast is no face
    likelihood = measure(Identity((3, 64, 64)), x, 0.02, torch.Generator().manual_seed(0))
    result = reconstruct(likelihood, load_prior("faces64"), 1.0, QUICK)
    known = load_prior("photos").untypical(result.image, torch.tensor([LEFT * 0.02]))
    assert known is not None
    (sentence,) = result.remarks
    assert ("try --prior photos" in sentence) == (float(known) <= 3)
    assert ("train a prior" in sentence) == (float(known) > 3)


def test_table_and_summary_tell():
    likelihood = measure(Identity(SHAPE), board(28), 0.05, torch.Generator().manual_seed(0))
    record, result = restore("denoise", "board", likelihood, load_prior("fashion28"), 1.0, options=QUICK)
    assert result.untypical is not None
    assert record.untypical == float(result.untypical)
    text = table([record])
    assert "sd off" in text and "unlike anything that the prior was trained on" in text
