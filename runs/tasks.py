"""Every operator and every noise model in figures, on faces that the prior was not trained on.

    python runs/tasks.py HELD_OUT_TAR --out docs/results

The pictures are the first faces of the tar that was held out of training, 3 × 64 × 64, and the prior is
`faces64`. "Other" is what one would use without a flow, at its best: its weight or strength comes from the
truth, for each face. TV is total variation in opponent colours under a white Gaussian data term of the same
operator; bent and one-bit measurements are straightened first. BM3D works on a picture of even noise where
there is a transform for that (counts: Anscombe's with read-out noise; speckle: the logarithm). For tomography
the other method is Landweber's iteration, stopped at its best. "Start" is the prior's surrogate alone at the
chosen weight, in closed form (for signs: solved). "Default" is what `aipo.reconstruct` restores with all
defaults. "Mean" is the posterior mean of `aipo.sample`, by 401 evaluations. The table gives the mean PSNR in
dB. The script goes on where it stopped; --task runs one task alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from common import add_line, heading, held_out, load_faces, mean, of_mean, of_path, read
from rivals import Baseline, bm3d, total_variation
from torch import Tensor

from aipo import likelihoods as noise
from aipo import operators as op
from aipo.basics.arrays import expand
from aipo.basics.quality import psnr
from aipo.likelihoods import Likelihood
from aipo.posterior.chain import sample
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT, SHAPE = 3, (3, 64, 64)
WAYS = ("other", "default", "mean")
IDENTITY = op.Identity(SHAPE)
RAMP = torch.linspace(0.02, 0.2, 64).expand(SHAPE)
BANDS = 0.001 + 0.6 * torch.exp(-((torch.fft.fftfreq(64)[:, None] / 0.02) ** 2)) * (
    torch.fft.fftfreq(64)[None].abs() < 0.01
)


@dataclass(frozen=True)
class Task:
    """An instrument: its operator, the noise of a measurement y of it, and a value that y can have."""

    operator: op.Operator
    noise: Callable[[op.Operator, Tensor], Likelihood]
    valid: float = 0.5


def gaussian(operator: op.Operator, sigma: float) -> Task:
    return Task(operator, partial(noise.Gaussian, sigma=sigma))


TASKS = {
    "half of the pixels, σ = 0.02": gaussian(op.random_mask(SHAPE, share=0.5, seed=0), 0.02),
    "mosaic, σ = 0.02": gaussian(op.mosaic(SHAPE), 0.02),
    "blur of 1.5 pixels, σ = 0.01": gaussian(op.Blur(SHAPE, op.gaussian_kernel(1.5)), 0.01),
    "motion of 9 pixels, σ = 0.01": gaussian(op.Blur(SHAPE, op.motion_kernel(9, 30)), 0.01),
    "4 × 4 pixels to one, σ = 0.01": gaussian(op.Downsampling(SHAPE, 4), 0.01),
    "blurred, 2 × 2 to one, σ = 0.01": gaussian(
        op.Composition(op.Blur(SHAPE, op.gaussian_kernel(1.0)), op.Downsampling(SHAPE, 2)), 0.01
    ),
    "grey, σ = 0.02": gaussian(op.Grey(SHAPE), 0.02),
    "grey and coarse colour, σ = 0.02": gaussian(op.Stack(op.Grey(SHAPE), op.Downsampling(SHAPE, 4)), 0.02),
    "30 % of the frequencies, σ = 0.02": gaussian(
        op.FourierMask(SHAPE, op.cartesian_mask(SHAPE[1:], share=0.3)), 0.02
    ),
    "tomography, 30 angles, σ = 0.1": gaussian(op.Radon(SHAPE, torch.arange(0, 180, 6.0)), 0.1),
    "random frequencies, m = n/5, σ = 0.01": gaussian(op.FourierSensing(SHAPE, 2457, seed=0), 0.01),
    "tone curve 2.2, σ = 0.05": gaussian(op.gamma_curve(IDENTITY, 2.2), 0.05),
    "magnitudes, m = n/2, σ = 0.01": gaussian(op.Magnitude(op.FourierSensing(SHAPE, 6144, seed=0)), 0.01),
    "one bit, m = 2n/3": Task(
        op.FourierSensing(SHAPE, 8192, seed=0), partial(noise.OneBit, threshold=0.0, sigma=0.1), valid=1.0
    ),
    "σ from 0.02 to 0.2": Task(IDENTITY, partial(noise.Heteroscedastic, sigma=RAMP)),
    "bands": Task(IDENTITY, partial(noise.Coloured, spectrum=BANDS)),
    "50 photons": Task(IDENTITY, partial(noise.Poisson, gain=50.0)),
    "100 photons and σ = 0.05": Task(IDENTITY, partial(noise.PoissonGaussian, gain=100.0, sigma=0.05)),
    "Laplace, σ = 0.1": Task(IDENTITY, partial(noise.Laplace, scale=0.1 / math.sqrt(2))),
    "logistic, σ = 0.1": Task(IDENTITY, partial(noise.Logistic, scale=0.1 * math.sqrt(3) / math.pi)),
    "Student's t, ν = 3, σ = 0.1": Task(
        IDENTITY, partial(noise.StudentT, freedom=3.0, scale=0.1 / math.sqrt(3))
    ),
    "speckle of 20 looks": Task(IDENTITY, partial(noise.Gamma, looks=20.0)),
    "speckle of logarithms, 100 looks": Task(IDENTITY, partial(noise.LogGamma, looks=100.0)),
    "magnitudes of complex values, σ = 0.1": Task(IDENTITY, partial(noise.Rician, sigma=0.1)),
    "steps of 1/4 after σ = 0.1": Task(IDENTITY, partial(noise.Quantised, step=0.25, sigma=0.1)),
    "clipped at 0.2 and 0.8, σ = 0.1": Task(IDENTITY, partial(noise.Clipped, low=0.2, high=0.8, sigma=0.1)),
}


def main() -> None:
    parser = held_out(__doc__)
    parser.add_argument("--task", choices=list(TASKS), nargs="*", default=None, help="only these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = load_faces(arguments.tar, COUNT)
    file = arguments.out / "tasks.jsonl"
    done = {(row["task"], row["way"]) for row in read(file)}
    for name in arguments.task or TASKS:
        for way in WAYS:
            if (name, way) not in done:
                add_line({"task": name, "way": way, **judge(TASKS[name], way, x)}, file)
    if arguments.task is None:
        write(arguments.out)


def judge(task: Task, way: str, x: Tensor) -> dict:
    """PSNR of each face; every way restores the same measurements."""
    likelihood = measured(task, x)
    if way == "other":
        found = [other(likelihood.select(torch.tensor([i])), x[i : i + 1]) for i in range(len(x))]
        images = torch.cat([baseline.image for _, baseline in found])
        return {"psnr": psnr(images, x).tolist(), "name": found[0][0]}
    prior = load_prior("faces64")
    if way == "default":
        return of_path(reconstruct(likelihood, prior), x)
    return of_mean(sample(likelihood, prior), x)


def measured(task: Task, x: Tensor) -> Likelihood:
    """Fresh noise, always the same."""
    like = torch.full((len(x), *task.operator.measurement_shape), task.valid)
    blank = task.noise(task.operator, like)
    return task.noise(task.operator, blank.simulate(x, torch.Generator().manual_seed(0)))


def other(likelihood: Likelihood, truth: Tensor) -> tuple[str, Baseline]:
    """Name and result of what one would use without a flow."""
    match likelihood:
        case noise.Poisson() | noise.PoissonGaussian():
            return "BM3D, Anscombe", _anscombe(likelihood, truth)
        case noise.Gamma():
            return "BM3D, logarithm", _logarithmic(likelihood, truth)
    if isinstance(likelihood.operator, op.Radon):
        return "Landweber", _stopped(likelihood.operator, likelihood.y, truth)
    if isinstance(likelihood.operator, op.Identity) and not isinstance(likelihood, noise.Coloured):
        sigma = float(likelihood.moments(truth)[1].mean().sqrt())
        return "BM3D", bm3d(IDENTITY, _unbiased(likelihood), sigma, truth)
    # White also for coloured noise: behind its whitening filter TV is worse (dev/LOG.md).
    y, sigma = likelihood.operator.straighten(likelihood.nearest()[0], likelihood.noise_level)
    return "TV", total_variation(likelihood.operator.linear, y, float(sigma[0]), truth)


def _anscombe(likelihood: noise.Poisson | noise.PoissonGaussian, truth: Tensor) -> Baseline:
    """Counts k made 2√(k + 3/8 + s²) of variance 1, and back by the asymptotically unbiased inverse.

    Source: Murtagh, Starck & Bijaoui 1995; Mäkitalo & Foi 2013.
    """
    gain = float(likelihood.gain[0])
    read_out = gain * float(likelihood.sigma[0]) if isinstance(likelihood, noise.PoissonGaussian) else 0.0

    def there(x: Tensor) -> Tensor:
        return 2 * (gain * x + 0.375 + read_out**2).clamp_min(0).sqrt()

    def back(z: Tensor) -> Tensor:
        return ((z / 2) ** 2 - 0.125 - read_out**2) / gain

    return _stabilised(there(likelihood.y), there(truth), 1.0, back)


def _logarithmic(likelihood: noise.Gamma, truth: Tensor) -> Baseline:
    """The logarithm makes speckle additive; the mean of its noise is taken off."""
    looks = likelihood.looks[0].double()
    shift, spread = float(torch.digamma(looks) - looks.log()), float(torch.polygamma(1, looks).sqrt())
    return _stabilised(likelihood.y.log() - shift, truth.clamp_min(0.01).log(), spread, torch.exp)


def _stabilised(z: Tensor, truth: Tensor, sigma: float, back: Callable[[Tensor], Tensor]) -> Baseline:
    """BM3D where noise is of about σ everywhere, between the least and the largest value of z."""
    low, width = z.min(), z.max() - z.min()
    found = bm3d(IDENTITY, (z - low) / width, sigma / float(width), (truth - low) / width)
    return Baseline(back(found.image * width + low), found.weight)


def _stopped(operator: op.Radon, y: Tensor, truth: Tensor) -> Baseline:
    """Landweber's iteration from grey, accelerated by Nesterov, where it is nearest to the truth."""
    x = before = torch.full_like(truth, 0.5)
    tried = []
    for count in range(1, 200):
        ahead = x + (count - 1) / (count + 2) * (x - before)
        gradient = operator.adjoint(operator(ahead) - y)
        x, before = ahead - gradient / operator.norm_squared, x
        tried.append(Baseline(x, count))
    return max(tried, key=lambda baseline: float(psnr(baseline.image, truth)))


def _unbiased(likelihood: Likelihood) -> Tensor:
    """y less the mean of its noise, where that is known."""
    if isinstance(likelihood, noise.LogGamma):
        looks = expand(likelihood.looks, likelihood.y)
        return likelihood.y - torch.digamma(looks) + looks.log()
    return likelihood.gaussian().y


def write(out: Path) -> None:
    found = {(row["task"], row["way"]): row for row in read(out / "tasks.jsonl")}
    lines = [*heading("Every operator, every noise model", __doc__), f"{COUNT} faces.", ""]
    lines += [
        "| task | other | | start | default | evaluations | mean | inside 90 % |",
        "|---" * 8 + "|",
    ]
    for name in TASKS:
        if all((name, way) in found for way in WAYS):
            lines.append(_line(name, *(found[name, way] for way in WAYS)))
    (out / "tasks.md").write_text("\n".join(lines) + "\n")


def _line(name: str, other: dict, usual: dict, drawn: dict) -> str:
    cells = [name, other["name"], f"{mean(other['psnr']):.2f}", f"{mean(usual['start']):.2f}"]
    cells += [f"{mean(usual['psnr']):.2f}", f"{mean(usual['evaluations']):.0f}"]
    cells += [f"{mean(drawn['psnr']):.2f}", f"{100 * mean(drawn['inside']):.0f} %"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
