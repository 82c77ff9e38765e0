"""The training step as the notebooks tell it first: NumPy, one new array per operation, nothing
reused, nothing in place. It is the 'before' of the tables, the oracle for the peer in PyTorch, and
the subject of the first bar of the profile picture. It knows nothing of the package.
"""

import time

import numpy as np

SIZES, UNITS, BATCH = (
    (784, 1000, 100),
    ("sigmoid", "softplus", "sigmoid"),
    100,
)  # Section 8 of the paper
SETTINGS = dict(
    n_steps=15,
    delta=0.1,
    alpha=0.001,
    noise=(0.5, 0.1, "spikes"),
    rate_f=(3e-4, 1e-3),
    rate_g=(1e-3, 1e-3),
)


def softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def sigmoid(a):
    return 0.5 + 0.5 * np.tanh(0.5 * a)


RATE = {"softplus": softplus, "sigmoid": sigmoid}
SLOPE = {"softplus": lambda y: 1 - np.exp(-y), "sigmoid": lambda y: y * (1 - y)}


def start(sizes=SIZES, seed=0):
    "Glorot weights and zero biases as plain arrays: {'f1': (W, b), 'g1': (W, b), ...}."
    rng, weights = np.random.default_rng(seed), {}
    for k, (low, high) in enumerate(zip(sizes, sizes[1:]), 1):
        for name, n_in, n_out in ((f"f{k}", low, high), (f"g{k}", high, low)):
            W = (2 * rng.random((n_in, n_out), dtype=np.float32) - 1) * np.float32(
                np.sqrt(6 / (n_in + n_out))
            )
            weights[name] = (W, np.zeros(n_out, np.float32))
    return weights


def pictures(n, width=SIZES[0], seed=0):
    """Made-up pictures (n, width) float32 in [0, 1] with a fifth of their pixels inked, as
    handwritten digits have.
    """
    rng = np.random.default_rng(seed)
    return rng.random((n, width), dtype=np.float32) * (
        rng.random((n, width), dtype=np.float32) < 0.2
    )


def draw(rng, sizes, batch):
    """The random numbers of one step: a normal (batch, n_k) for each layer below the top, three
    uniforms (3, batch, n_M) for the top.
    """
    return [rng.standard_normal((batch, n), dtype=np.float32) for n in sizes[:-1]] + [
        rng.random((3, batch, sizes[-1]), dtype=np.float32)
    ]


def corrupt(h, noises, draws):
    "Noisy copies of all layers; `noises` as in TrainConfig.noise, `draws` as `draw` makes them."
    return [
        (draw < layer).sum(0, dtype=np.float32) / 3
        if noise == "spikes"
        else layer + np.float32(noise) * draw
        for layer, noise, draw in zip(h, noises, draws)
    ]


class Clock:
    """Adds up seconds under the name of the part that is being computed;
    `with clock('products'): ...`.
    """

    def __init__(self):
        self.seconds = {}

    def __call__(self, part):
        self.part = part
        return self

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        self.seconds[self.part] = self.seconds.get(self.part, 0) + time.perf_counter() - self.start


class Plain:
    "Training by plain NumPy: `step(x, draws)` for one minibatch; `clock` times the parts."

    def __init__(self, weights, units=UNITS, settings=SETTINGS, clock=None):
        self.maps, self.units, self.set, self.t = dict(weights), units, settings, 0
        self.books = {
            name: [(np.zeros_like(w), np.zeros_like(w)) for w in pair]
            for name, pair in weights.items()
        }
        self.clock = clock or Clock()
        self.M = len(units) - 1

    def unit(self, name):
        return self.units[int(name[1:]) - (name[0] == "g")]

    def rates(self, name, h):
        W, b = self.maps[name]
        with self.clock("products"):
            a = h @ W
        with self.clock("elementwise"):
            return RATE[self.unit(name)](a + b)

    def infer(self, x):
        """INFERENCE as Algorithm 2 writes it: Eq. 12 from the top layer down, with the pull of
        alpha from above.
        """
        h, M = [x], self.M
        for k in range(1, M + 1):
            h.append(self.rates(f"f{k}", h[-1]))
        for _ in range(self.set["n_steps"]):
            for k in range(M, 0, -1):
                below, bottom = (
                    self.rates(f"f{k}", h[k - 1]),
                    self.rates(f"f{k}", self.rates(f"g{k}", h[k])),
                )
                above = self.rates(f"g{k + 1}", h[k + 1]) if k < M else None
                with self.clock("elementwise"):
                    step = np.float32(self.set["delta"]) * (below - bottom)
                    if k < M:
                        step = step + np.float32(self.set["alpha"]) * (above - h[k])
                    h[k] = h[k] + step
        return h

    def learn(self, name, inputs, targets, rate):
        "One local step of one map by Adam; returns its loss."
        y = self.rates(name, inputs)
        with self.clock("elementwise"):
            error = y - targets
            delta = error * SLOPE[self.unit(name)](y) / len(inputs)
            loss = 0.5 * (error * error).sum() / len(inputs)
        with self.clock("products"):
            dW = inputs.T @ delta
        with self.clock("elementwise"):
            db = delta.sum(0)
        with self.clock("optimiser"):
            self.maps[name], self.books[name] = zip(
                *(
                    self.adam(*args, rate)
                    for args in zip(self.maps[name], (dW, db), self.books[name])
                )
            )
        return float(loss)

    def adam(self, w, grad, books, rate):
        m, v = 0.9 * books[0] + 0.1 * grad, 0.999 * books[1] + 0.001 * grad * grad
        step = m / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)
        return w - (rate / (1 - 0.9**self.t)) * step, (m, v)

    def step(self, x, draws, scale=1.0):
        "One minibatch of TRAIN; returns the losses [(f_1, g_1), ...]."
        self.t += 1
        h = self.infer(x)
        with self.clock("noise"):
            noisy = corrupt(h, self.set["noise"], draws() if callable(draws) else draws)
        return [
            (
                self.learn(f"f{k}", noisy[k - 1], h[k], scale * self.set["rate_f"][k - 1]),
                self.learn(f"g{k}", noisy[k], h[k - 1], scale * self.set["rate_g"][k - 1]),
            )
            for k in range(1, self.M + 1)
        ]
