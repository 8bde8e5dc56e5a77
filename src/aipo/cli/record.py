"""Restore one measurement, and record everything about it that is worth reporting.

The numbers of the demo, of the restore command and of every experiment come from here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.likelihoods import Likelihood
from aipo.path.options import PathOptions
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior
from aipo.reconstruction.progress import Progress
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction
from aipo.selection.plans import Weight

View = Callable[[Images], Images]


def as_it_is(image: Images) -> Images:
    """The view that shows the whole picture."""
    return image


@dataclass(frozen=True)
class Record:
    """What one restoration cost and gave. A value is None if it is unknown or infinite.

    Attributes:
        task: its name, such as "denoise", "sense" or "inpaint".
        image: name of the picture.
        psnr_before: dB of the measurement's pseudo-inverse A⁺y against the truth.
        psnr_start: dB of the closed-form Gaussian start at the chosen weight.
        psnr_after: dB of the restoration.
        data_energy, prior_energy: D and R at the restoration, nats.
        weight: the chosen λ.
        criterion: what chose λ.
        evaluations: value-and-gradient evaluations of the flow.
        seconds: wall-clock time.
        status: how the search at the chosen weight ended, or the chains.
        remaining: how many nats could still be gained there, as the metric expects; a path whose states are
            mixed leaves some on purpose.
        plan: what was done and why, in one sentence.
        sigma: the noise level used; for noise that is not Gaussian, the level of the nearest Gaussian noise.
        rhat: R̂ of the chains of a posterior mean, 1 or a little more where they agree.
        effective: how many independent draws would tell that mean as well.
        residuals: the worst relative residuals of closed forms that were solved for by iterations.
        untypical: how many standard deviations the picture is from those that the prior was trained on.
        remarks: what else the user should know, one sentence each.
    """

    task: str
    image: str
    psnr_before: float | None
    psnr_start: float | None
    psnr_after: float | None
    data_energy: float
    prior_energy: float
    weight: float
    criterion: str
    evaluations: int
    seconds: float
    status: str
    remaining: float | None
    plan: str
    sigma: float
    rhat: float | None
    effective: float | None
    residuals: dict[str, float | None]
    untypical: float | None
    remarks: list[str]


def restore(
    task: str,
    name: str,
    likelihood: Likelihood,
    prior: FlowPrior,
    weight: Weight = "auto",
    truth: Images | None = None,
    options: PathOptions | None = None,
    progress: Progress | None = None,
    view: View = as_it_is,
    chain: LangevinOptions | None = None,
) -> tuple[Record, Reconstruction]:
    """Restore one picture's measurement (batch of one) and record it.

    Args:
        task, name: for the record.
        truth: the true picture as `view` shows it, (1, C, H, W), if it is known; it is used for PSNR only.
        view: shows a picture, for example its grey if the prior is for colour.
        options, progress, chain: as for `reconstruct`.

    Raises:
        InputError: likelihood and prior do not fit each other.
    """
    started = time.perf_counter()
    result = reconstruct(likelihood, prior, weight, options, chain=chain, progress=progress)
    seconds = time.perf_counter() - started
    drawn, far = result.drawn, result.untypical
    record = Record(
        task=task,
        image=name,
        psnr_before=None if truth is None else _quality(view(explanation(likelihood)), truth),
        psnr_start=None if truth is None else _quality(view(result.start), truth),
        psnr_after=None if truth is None else _quality(view(result.image), truth),
        data_energy=float(result.data_energy[0]),
        prior_energy=float(result.prior_energy[0]),
        weight=float(result.weight[0]),
        criterion=result.criterion,
        evaluations=int(result.evaluations[0]),
        seconds=seconds,
        status=result.status[0].name.lower(),
        remaining=_finite(float(result.path[int(result.chosen[0])].decrement[0])),
        plan=result.reason,
        sigma=float(likelihood.noise_level[0]),
        rhat=None if drawn is None else _finite(float(drawn.rhat[0])),
        effective=None if drawn is None else _finite(float(drawn.effective[0])),
        residuals={what: _finite(worst) for what, worst in result.residuals.items()},
        untypical=None if far is None else _finite(float(far[0])),
        remarks=result.remarks,
    )
    return record, result


def explanation(likelihood: Likelihood) -> Images:
    """A⁺y, the picture of least norm that explains the measurements best."""
    near = likelihood.gaussian()
    return near.operator.linear.pseudoinverse(near.y)


def _quality(image: Images, truth: Images) -> float | None:
    return _finite(float(psnr(image, truth)[0]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
