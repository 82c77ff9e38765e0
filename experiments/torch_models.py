"""The same architecture trained by back-propagation, in PyTorch: a variational auto-encoder and the
chain of a denoising auto-encoder.

Both are `Baseline`s whose pictures go in and out as NumPy arrays. Random numbers are
drawn by the package's `Random`, so that a seed means the same here as there.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import softplus

from biolearn.core.data import minibatches
from biolearn.core.generation import check_mask, in_blocks
from biolearn.core.layers import Dense, corrupt, init_dense
from biolearn.core.model import TopPrior
from biolearn.core.priors import fit_mixture_prior, fit_top_prior, sample_prior
from biolearn.evaluation.baselines import Baseline
from biolearn.evaluation.likelihood import Decoder

# seeds may run side by side; and the last bits do not depend on the number of cores
torch.set_num_threads(1)
LOG_2_PI = float(np.log(2 * np.pi))


def tensor(x):
    "A NumPy array as a tensor; one that must not be written to is copied."
    return torch.from_numpy(np.require(x, requirements="W"))


class Map(torch.nn.Module):
    "One `Dense` of the package as a module: the same initialisation, the same units."

    def __init__(self, dense):
        super().__init__()
        self.W = torch.nn.Parameter(torch.tensor(dense.W))
        self.b = torch.nn.Parameter(torch.tensor(dense.b))
        self.unit = dense.unit

    def forward(self, h):
        a = torch.addmm(self.b, h, self.W)
        return {"softplus": softplus, "sigmoid": torch.sigmoid, "linear": lambda a: a}[self.unit](a)

    def dense(self):
        return Dense(*(p.detach().numpy().copy() for p in (self.W, self.b)), self.unit)


def stack(sizes, units, rng):
    "Maps between layers of `sizes`, a module."
    pairs = enumerate(zip(sizes, sizes[1:], units))
    maps = (Map(init_dense(a, b, unit, rng=rng.stream(k))) for k, (a, b, unit) in pairs)
    return torch.nn.Sequential(*maps)


@dataclass(frozen=True)
class Loop:
    "How a model is trained, and how long its chain completes pictures."

    epochs: int = 20
    batch_size: int = 100
    rate: float = 1e-3  # of Adam; falls linearly to 0
    inpaint_rounds: int = 20


def train(module, loss, x, loop, *, rng):
    """Adam on the mean of `loss(batch, rng)` over the rows of `x`, its rate falling linearly to 0;
    returns the mean loss of each epoch.
    """
    rate, epochs = loop.rate, loop.epochs
    adam = torch.optim.Adam(module.parameters(), lr=rate, fused=True)
    history, t = [], 0
    n_batches = -(-len(x) // loop.batch_size)
    for epoch in range(epochs):
        noise, losses = rng.stream("epoch", epoch, "noise"), []
        for batch in minibatches(x, loop.batch_size, rng=rng.stream("epoch", epoch, "order")):
            adam.param_groups[0]["lr"] = rate * (1 - t / (epochs * n_batches))
            value = loss(torch.from_numpy(batch), noise)
            adam.zero_grad()
            value.backward()
            adam.step()
            losses.append(float(value.detach()))
            t += 1
        history.append(float(np.mean(losses)))
        if not np.isfinite(history[-1]):
            raise ArithmeticError(
                f"{type(module).__name__}: the loss is not finite in epoch {epoch + 1}; "
                f"take a smaller rate."
            )
    return history


def complete_by_chain(step, x, visible, rounds, rng):
    """`rounds` times x ← step(x, rng) with what is `visible` clamped; the rest starts at random.

    The last picture's hidden pixels are means.
    """
    visible = check_mask(visible, x)
    x = np.where(visible, x, rng.stream("start").uniform(x.shape))
    for i in range(rounds):
        x = np.where(visible, x, step(x, rng.stream("round", i)))
    return x


class Vae(Baseline, torch.nn.Module):
    """x ~ N(g(z), s² I) with z ~ N(0, I); q(z | x) = N(mean(x), exp(log_var(x))). Kingma &
    Welling 2014. s is learnt, or `sd` where it is given.

    A learnt s becomes small, since most pixels near the border are easy: the density is then high,
    and the codes of digits fill little of the prior, so that samples are poor. A fixed larger s
    trades one for the other. In-painting: `inpaint_rounds` rounds of encode, sample z, decode, with
    the visible pixels clamped (Rezende et al. 2014, without the noise of the pixels).

    After `fit_prior`, z is drawn from a mixture of Gaussians learnt from codes of training pictures:
    the prior that the paper's network has in the profile "mixture".
    """

    name = "variational auto-encoder"

    def __init__(self, n_0, hidden, n_z, *, rng, sd=None, inpaint_rounds=20):
        super().__init__()
        self.up = stack((n_0, hidden, 2 * n_z), ("softplus", "linear"), rng.stream("up"))
        self.down = stack((n_z, hidden, n_0), ("softplus", "sigmoid"), rng.stream("down"))
        log_sd = torch.tensor(-1.5 if sd is None else math.log(sd))
        self.log_sd = torch.nn.Parameter(log_sd, requires_grad=sd is None)
        self.prior = TopPrior(np.zeros(n_z, np.float32), np.ones(n_z, np.float32))
        self.n_z = n_z
        self.inpaint_rounds = inpaint_rounds

    @torch.no_grad()
    def fit_prior(self, x, n_components, *, rng):
        "Learn a mixture of `n_components` from a draw of q(z | x) for each row of `x`."
        mean, log_var = self.up(tensor(x)).chunk(2, dim=1)
        noise = torch.from_numpy(rng.stream("codes").normal(tuple(mean.shape)))
        codes = (mean + torch.exp(0.5 * log_var) * noise).numpy()
        self.prior = fit_mixture_prior(codes, n_components, rng=rng.stream("mixture"))

    def elbo_terms(self, x, noise):
        """E log p(x | z) by one draw z = mean + sd × `noise`, and KL(q(z | x) || p(z)) in closed
        form, both (batch,), nats.
        """
        mean, log_var = self.up(x).chunk(2, dim=1)
        y = self.down(mean + torch.exp(0.5 * log_var) * noise)
        log_p = -0.5 * ((x - y) ** 2).sum(1) * torch.exp(-2 * self.log_sd) - x.shape[1] * (
            self.log_sd + 0.5 * LOG_2_PI
        )
        return log_p, 0.5 * (mean**2 + torch.exp(log_var) - 1 - log_var).sum(1)

    def loss(self, x, rng):
        log_p, kl = self.elbo_terms(x, torch.from_numpy(rng.normal((x.shape[0], self.n_z))))
        return (kl - log_p).mean()

    @torch.no_grad()
    def elbo(self, x, *, rng):
        "The bound on log p of each row of `x`, one draw each: (n,) NumPy."
        log_p, kl = self.elbo_terms(tensor(x), torch.from_numpy(rng.normal((len(x), self.n_z))))
        return (log_p - kl).numpy()

    @torch.no_grad()
    def sample(self, n, *, rng):
        def make(size, rng):
            return self.down(torch.from_numpy(sample_prior(self.prior, size, rng=rng))).numpy()

        return in_blocks(make, n, rng)

    @torch.no_grad()
    def inpaint(self, x, visible, *, rng):
        def step(x, rng):
            mean, log_var = self.up(tensor(x)).chunk(2, dim=1)
            return self.down(
                mean + torch.exp(0.5 * log_var) * torch.from_numpy(rng.normal(tuple(mean.shape)))
            ).numpy()

        return complete_by_chain(step, x, visible, self.inpaint_rounds, rng)

    def decoder(self):
        pixels = float(torch.exp(self.log_sd.detach()))
        return Decoder(tuple(m.dense() for m in self.down), self.prior, (0.0, pixels))


class DaeChain(Baseline, torch.nn.Module):
    """A deep denoising auto-encoder: reconstruct x from x plus Gaussian noise of deviation `noise`.
    Its chain, corrupt and reconstruct by turns, samples (Bengio et al. 2013).

    `start`: 'code', the picture of a code drawn from a Gaussian with the mean and variance of the
    training codes (as GENERATE starts), or 'noise', uniform pixels. A round's picture is the mean,
    without pixel noise.
    """

    name = "denoising auto-encoder chain"

    def __init__(self, n_0, config, *, rng):
        super().__init__()
        hidden, n_code = config.hidden, config.n_code
        self.up = stack((n_0, hidden, n_code), ("softplus", "sigmoid"), rng.stream("up"))
        self.down = stack((n_code, hidden, n_0), ("softplus", "sigmoid"), rng.stream("down"))
        self.noise = config.noise
        self.start = config.start
        self.rounds = config.rounds
        self.inpaint_rounds = config.inpaint_rounds
        self.prior = None

    def loss(self, x, rng):
        noisy = torch.from_numpy(corrupt(x.numpy(), self.noise, rng=rng))
        return 0.5 * ((self.down(self.up(noisy)) - x) ** 2).sum(1).mean()

    @torch.no_grad()
    def fit_prior(self, x, n_components, *, rng):
        """What codes are drawn from, learnt from the codes of `x`: a mixture of `n_components`
        Gaussians, or for 0 the one Gaussian with their mean and variance.
        """
        codes = self.up(tensor(x)).numpy()
        if n_components:
            self.prior = fit_mixture_prior(codes, n_components, rng=rng.stream("mixture"))
        else:
            self.prior = fit_top_prior(codes, widen=1.0)

    @torch.no_grad()
    def reconstruct(self, x, rng):
        return self.down(self.up(torch.from_numpy(corrupt(x, self.noise, rng=rng)))).numpy()

    @torch.no_grad()
    def sample(self, n, *, rng):
        def make(size, rng):
            if self.start == "code":
                code = sample_prior(self.prior, size, rng=rng.stream("start"))
                x = self.down(torch.from_numpy(code)).numpy()
            else:
                x = rng.stream("start").uniform((size, self.down[-1].b.shape[0]))
            for i in range(self.rounds):
                x = self.reconstruct(x, rng.stream("round", i))
            return x

        return in_blocks(make, n, rng)

    def inpaint(self, x, visible, *, rng):
        return complete_by_chain(self.reconstruct, x, visible, self.inpaint_rounds, rng)


@dataclass(frozen=True)
class VaeConfig(Loop):
    """The settings of `fit_vae`: units of the hidden layers and of z, the pixels' noise if given,
    and how many Gaussians z is drawn from after training (0: the N(0, I) of training).
    """

    hidden: int = 1000
    n_z: int = 100
    sd: float | None = None
    components: int = 0


def fit_vae(x, config=VaeConfig(), *, rng):
    """A `Vae` trained on the rows of `x` (n, n_0) float32, and its mean loss (minus the bound,
    nats) in each epoch.
    """
    vae = Vae(
        x.shape[1],
        config.hidden,
        config.n_z,
        sd=config.sd,
        rng=rng.stream("init"),
        inpaint_rounds=config.inpaint_rounds,
    )
    history = train(vae, vae.loss, x, config, rng=rng.stream("train"))
    if config.components:
        vae.fit_prior(x, config.components, rng=rng.stream("prior"))
    return vae, history


@dataclass(frozen=True)
class DaeConfig(Loop):
    """The settings of `fit_dae`: units, noise of the corruption, start and rounds of its chain, and
    how many Gaussians its first code is drawn from (0: one, with the codes' mean and variance).
    """

    hidden: int = 1000
    n_code: int = 100
    noise: float = 0.5
    start: str = "code"
    rounds: int = 3
    components: int = 0


def fit_dae(x, config=DaeConfig(), *, rng):
    "A `DaeChain` trained on the rows of `x` (n, n_0) float32, and its mean loss in each epoch."
    dae = DaeChain(x.shape[1], config, rng=rng.stream("init"))
    history = train(dae, dae.loss, x, config, rng=rng.stream("train"))
    dae.fit_prior(x, config.components, rng=rng.stream("prior"))
    return dae, history
