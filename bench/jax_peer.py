"""The same algorithm in JAX: one function for the whole step (E-step, noise, M-step, Adam), compiled
by XLA, which fuses what stands between the products; inference is unrolled, products that share
weights are stacked, old weights give their memory to new ones. float32 throughout, on the CPU. No
autograd is needed: the rule is local. Needs jax and numpy, nothing of this package.
"""

import functools

import jax
import jax.numpy as jnp

RATE = {"softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid}
SLOPE = {"softplus": lambda y: 1 - jnp.exp(-y), "sigmoid": lambda y: y * (1 - y)}


class Baseline:
    "Training in JAX: `step(x, draws)` for one minibatch x (batch, n_0)."

    def __init__(self, weights, units, settings):
        self.units, self.set, self.M, self.t = units, settings, len(units) - 1, 0
        self.maps = {name: tuple(map(jnp.asarray, pair)) for name, pair in weights.items()}
        zeros = lambda: {n: tuple(jnp.zeros_like(w) for w in p) for n, p in self.maps.items()}
        self.mean, self.square = zeros(), zeros()
        self.sizes = [self.maps["f1"][0].shape[0]]
        self.sizes += [self.maps[f"f{k}"][0].shape[1] for k in range(1, self.M + 1)]
        self.key = jax.random.key(0, impl="rbg")
        self.compiled = jax.jit(self._step, donate_argnums=(0, 1, 2))

    def step(self, x, draws=None, scale=1.0):
        "One minibatch of TRAIN (Algorithm 2); returns the losses of f_1, g_1, f_2, ..."
        self.t += 1
        self.key, key = jax.random.split(self.key) if draws is None else (self.key, draws)
        state = self.maps, self.mean, self.square
        new = self.compiled(*state, x, key, jnp.float32(scale), jnp.float32(self.t))
        (self.maps, self.mean, self.square), losses = new
        return losses

    def draw(self, key, batch):
        "The random numbers of one step: normals below the top, three uniforms for the top."
        keys = jax.random.split(key, self.M + 1)
        normal = [jax.random.normal(k, (batch, n)) for k, n in zip(keys, self.sizes[:-1])]
        return [*normal, jax.random.uniform(keys[-1], (3, batch, self.sizes[-1]))]

    def unit(self, name):
        return self.units[int(name[1:]) - (name[0] == "g")]

    def rates(self, maps, name, h):
        return RATE[self.unit(name)](h @ maps[name][0] + maps[name][1])

    def infer(self, maps, x):
        "INFERENCE: f_k takes h_{k-1} and its reconstruction in one product."
        M, B, rates = self.M, x.shape[0], functools.partial(self.rates, maps)
        h = [x]
        for k in range(1, M + 1):
            h.append(rates(f"f{k}", h[-1]))
        first, down = h[1], [None] + [rates(f"g{k}", h[k]) for k in range(1, M + 1)]
        for step in range(self.set["n_steps"]):
            for k in range(M, 0, -1):
                if k == 1:
                    above, below = first, rates("f1", down[1])
                else:
                    both = rates(f"f{k}", jnp.concatenate([h[k - 1], down[k]]))
                    above, below = both[:B], both[B:]
                change = self.set["delta"] * (above - below)
                if k < M:
                    change += self.set["alpha"] * (down[k + 1] - h[k])
                h[k] = h[k] + change
                if k > 1 or step < self.set["n_steps"] - 1:
                    down[k] = rates(f"g{k}", h[k])
        return h

    def _step(self, maps, mean, square, x, draws, scale, t):
        "New weights and memories of Adam, and the losses."
        h, B = self.infer(maps, x), x.shape[0]
        draws = draws if isinstance(draws, list) else self.draw(draws, B)
        noisy = [
            (z < a).sum(0, dtype=a.dtype) / 3 if noise == "spikes" else a + noise * z
            for a, noise, z in zip(h, self.set["noise"], draws)
        ]
        losses, state = [], ({}, {}, {})
        for k in range(1, self.M + 1):
            for name, i, j in ((f"f{k}", k - 1, k), (f"g{k}", k, k - 1)):
                y = self.rates(maps, name, noisy[i])
                error = y - h[j]
                delta = error * SLOPE[self.unit(name)](y) / B
                losses.append(0.5 * (error * error).sum() / B)
                grads = noisy[i].T @ delta, delta.sum(0)
                rate = scale * self.set["rate_" + name[0]][k - 1]
                memory = zip(maps[name], mean[name], square[name], grads)
                new = [adam(*each, rate, t) for each in memory]
                for table, values in zip(state, zip(*new)):
                    table[name] = values
        return state, jnp.stack(losses)


def adam(w, mean, square, grad, rate, t):
    "One step of Adam: the new weights and memories."
    mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad * grad
    root = jnp.sqrt(square / (1 - 0.999**t)) + 1e-8
    return w - rate / (1 - 0.9**t) * mean / root, mean, square
