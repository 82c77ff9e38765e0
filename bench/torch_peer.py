"""The same algorithm written well in PyTorch, in the same precision and with the same reuse of
products. No autograd is needed: the rule is local.

Eager: results into given buffers, activation functions in place, products that share weights
stacked, the library's fused Adam. Compiled: one function for the whole E-step and M-step up to the
gradients (`torch.compile` unrolls the inference and fuses what stands between the products), then
the same fused Adam, whose learning rates change at every step. Graphed: the whole step, noise and
Adam included, as one CUDA graph. Needs torch and numpy, nothing of this package.
"""

import torch
from torch.nn.functional import softplus


class Baseline:
    """Training in PyTorch: `step(x, draws)` for one minibatch x (batch, n_0), a tensor.

    `mode`: 'eager', a mode of torch.compile, or 'functional' (what is compiled, not compiled).
    """

    def __init__(self, weights, units, settings, *, mode="eager", device="cpu"):
        self.device, self.units, self.set, self.M = (
            torch.device(device),
            units,
            settings,
            len(units) - 1,
        )
        self.maps = {
            name: [torch.tensor(w, device=self.device) for w in pair]
            for name, pair in weights.items()
        }
        self.sizes = [self.maps["f1"][0].shape[0]] + [
            self.maps[f"f{k}"][0].shape[1] for k in range(1, self.M + 1)
        ]
        for pair in self.maps.values():
            for w in pair:
                w.grad = torch.zeros_like(w)
        groups = [{"params": self.maps[name], "lr": self.rate(name)} for name in self.maps]
        self.adam = torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
        self.buffers = {}
        if mode == "eager":
            self.gradients = self.eager_gradients
        else:
            whole = self.functional_gradients
            compiled = (
                whole
                if mode == "functional"
                else torch.compile(whole, mode=None if mode == "default" else mode, dynamic=False)
            )

            def gradients(x, draws):
                losses, grads = compiled(
                    x, draws, {name: tuple(pair) for name, pair in self.maps.items()}
                )
                for name, pair in self.maps.items():
                    for w, grad in zip(pair, grads[name]):
                        w.grad = grad
                return losses

            self.gradients = gradients

    def rate(self, name):
        return self.set["rate_" + name[0]][int(name[1:]) - 1]

    def unit(self, name):
        return self.units[int(name[1:]) - (name[0] == "g")]

    def draw(self, batch):
        """The random numbers of one step, into buffers of their own: normals for the layers below
        the top, three uniforms for the top.
        """
        if ("draws", batch) not in self.buffers:
            shapes = [(batch, n) for n in self.sizes[:-1]] + [(3, batch, self.sizes[-1])]
            self.buffers["draws", batch] = [torch.empty(s, device=self.device) for s in shapes]
        *normal, uniform = self.buffers["draws", batch]
        for a in normal:
            a.normal_()
        uniform.uniform_()
        return [*normal, uniform]

    @torch.no_grad()
    def step(self, x, draws=None, scale=1.0):
        """One minibatch of TRAIN (Algorithm 2); returns the losses, a tensor (2 M,) in the order
        f_1, g_1, f_2, ...
        """
        losses = self.gradients(x, self.draw(x.shape[0]) if draws is None else draws)
        for group, name in zip(self.adam.param_groups, self.maps):
            group["lr"] = scale * self.rate(name)
        self.adam.step()
        return losses

    # ---- eager: in place -------------------------------------------------------------------------

    def buffer(self, key, rows, cols):
        if (key, rows) not in self.buffers:
            self.buffers[key, rows] = torch.empty(rows, cols, device=self.device)
        return self.buffers[key, rows]

    def rates(self, name, h, out):
        "f_k or g_k of `h`, written into `out`."
        W, b = self.maps[name]
        torch.addmm(b, h, W, out=out)
        return (
            torch._C._nn.softplus(out, out=out) if self.unit(name) == "softplus" else out.sigmoid_()
        )

    def eager_infer(self, x):
        """INFERENCE in place: h_k lies in the upper half of a buffer whose lower half is
        g_{k+1}(h_{k+1}), so that f_{k+1} takes both at once.
        """
        B, M, n = x.shape[0], self.M, self.sizes
        both = [None] + [self.buffer(f"both{k}", 2 * B, n[k]) for k in range(1, M)]
        h = [x] + [both[k][:B] for k in range(1, M)] + [self.buffer("top", B, n[M])]
        down = [None, self.buffer("down1", B, n[0])] + [both[k - 1][B:] for k in range(2, M + 1)]
        up = [None] + [self.buffer(f"up{k}", B if k == 1 else 2 * B, n[k]) for k in range(1, M + 1)]
        for k in range(1, M + 1):
            self.rates(f"f{k}", h[k - 1], h[k])
        first = (
            self.buffer("first", B, n[1]).copy_(h[1]).mul_(self.set["delta"])
        )  # delta f_1(x) never changes
        for k in range(1, M + 1):
            self.rates(f"g{k}", h[k], down[k])
        for step in range(self.set["n_steps"]):
            for k in range(M, 0, -1):
                y = self.rates(f"f{k}", down[1] if k == 1 else both[k - 1], up[k])
                if k < M:
                    h[k].lerp_(down[k + 1], self.set["alpha"])
                if k == 1:
                    h[k].add_(first).sub_(y, alpha=self.set["delta"])
                else:
                    h[k].add_(y[:B], alpha=self.set["delta"]).sub_(y[B:], alpha=self.set["delta"])
                if k > 1 or step < self.set["n_steps"] - 1:
                    self.rates(f"g{k}", h[k], down[k])
        return h

    def eager_gradients(self, x, draws):
        "E-step and M-step up to the gradients, which go into .grad of the weights."
        h, B, losses = self.eager_infer(x), x.shape[0], []
        noisy = [
            torch.add(a, z, alpha=noise, out=self.buffer(f"noisy{k}", B, self.sizes[k]))
            if noise != "spikes"
            else (z < a).sum(0, dtype=a.dtype).div_(3)
            for k, (a, noise, z) in enumerate(zip(h, self.set["noise"], draws))
        ]
        for k in range(1, self.M + 1):
            for name, inputs, targets in (
                (f"f{k}", noisy[k - 1], h[k]),
                (f"g{k}", noisy[k], h[k - 1]),
            ):
                (W, b), cols = self.maps[name], targets.shape[1]
                y = self.rates(name, inputs, self.buffer("y" + name, B, cols))
                error = torch.sub(y, targets, out=self.buffer("error" + name, B, cols))
                losses.append(torch.dot(error.view(-1), error.view(-1)) * (0.5 / B))
                slope = (
                    y.neg_().expm1_().mul_(-1 / B)
                    if self.unit(name) == "softplus"
                    else y.mul_(1 - y).mul_(1 / B)
                )
                delta = error.mul_(slope)
                torch.mm(inputs.t(), delta, out=W.grad)
                torch.sum(delta, 0, out=b.grad)
        return torch.stack(losses)

    # ---- functional: for torch.compile -----------------------------------------------------------

    def functional_gradients(self, x, draws, maps):
        "The same without buffers, for the compiler to fuse: (losses, {name: (dW, db)})."
        M, B, delta, alpha = self.M, x.shape[0], self.set["delta"], self.set["alpha"]

        def rates(name, h):
            a = torch.addmm(maps[name][1], h, maps[name][0])
            return softplus(a) if self.unit(name) == "softplus" else torch.sigmoid(a)

        h = [x]
        for k in range(1, M + 1):
            h.append(rates(f"f{k}", h[-1]))
        up, down = list(h), [None] + [rates(f"g{k}", h[k]) for k in range(1, M + 1)]
        for step in range(self.set["n_steps"]):
            for k in range(M, 0, -1):
                if k == 1 or step == 0:
                    above, below = up[k], rates(f"f{k}", down[k])
                else:
                    above, below = rates(f"f{k}", torch.cat([h[k - 1], down[k]])).split(B)
                change = delta * (above - below)
                if k < M:
                    change = change + alpha * (down[k + 1] - h[k])
                h[k] = h[k] + change
                if k > 1 or step < self.set["n_steps"] - 1:
                    down[k] = rates(f"g{k}", h[k])
        noisy = [
            a + noise * z if noise != "spikes" else (z < a).to(a.dtype).sum(0) / 3
            for a, noise, z in zip(h, self.set["noise"], draws)
        ]
        losses, grads = [], {}
        for k in range(1, M + 1):
            for name, inputs, targets in (
                (f"f{k}", noisy[k - 1], h[k]),
                (f"g{k}", noisy[k], h[k - 1]),
            ):
                y = rates(name, inputs)
                error = y - targets
                d = (
                    error
                    * (1 - torch.exp(-y) if self.unit(name) == "softplus" else y * (1 - y))
                    / B
                )
                losses.append(0.5 * (error * error).sum() / B)
                grads[name] = (inputs.t() @ d, d.sum(0))
        return torch.stack(losses), grads

    def weights(self):
        "All weights as NumPy arrays, {name: (W, b)}."
        return {
            name: tuple(w.detach().cpu().numpy() for w in pair) for name, pair in self.maps.items()
        }


class Graphed(Baseline):
    """The whole step as one CUDA graph, replayed: noise is drawn inside it (by the default
    generator, whose offset PyTorch moves on at each replay), and Adam's rates are tensors, which it
    computes from `scale`. `mode`: 'eager', or a mode of torch.compile that makes no graphs of its
    own. On a CPU the same step runs without being captured.
    """

    def __init__(self, weights, units, settings, *, batch, mode="eager", device="cuda"):
        super().__init__(weights, units, settings, mode=mode, device=device)
        cuda, number = (
            self.device.type == "cuda",
            lambda value: torch.tensor(value, device=self.device),
        )
        self.x, self.scale = torch.zeros(batch, self.sizes[0], device=self.device), number(1.0)
        groups = [{"params": self.maps[name], "lr": number(self.rate(name))} for name in self.maps]
        self.adam = torch.optim.Adam(
            groups, lr=number(1e-3), betas=(0.9, 0.999), eps=1e-8, fused=True, capturable=cuda
        )
        self.replay = self.capture() if cuda else self.whole

    @torch.no_grad()
    def whole(self, draws=None):
        "One step on what `x` and `scale` hold."
        losses = self.gradients(self.x, self.draw(self.x.shape[0]) if draws is None else draws)
        for group, name in zip(self.adam.param_groups, self.maps):
            torch.mul(self.scale, self.rate(name), out=group["lr"])
        self.adam.step()
        return losses

    def capture(self):
        """The replay of `whole`.

        Three steps on a stream aside allocate and compile everything; then weights and optimiser
        are put back to the start.
        """
        start, side = (
            {name: [w.clone() for w in pair] for name, pair in self.maps.items()},
            torch.cuda.Stream(),
        )
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.whole()
        torch.cuda.current_stream().wait_stream(side)
        for name, pair in self.maps.items():
            for w, old in zip(pair, start[name]):
                w.copy_(old)
                for kept in self.adam.state[w].values():
                    kept.zero_()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            losses = self.whole()

        def replay():
            self.graph.replay()
            return losses

        return replay

    @torch.no_grad()
    def step(self, x, draws=None, scale=1.0):
        """One minibatch of TRAIN, as in `Baseline`; given `draws` are for a step that is not
        captured.
        """
        if x is not self.x:
            self.x.copy_(x)
        self.scale.fill_(scale)
        return self.replay() if draws is None else self.whole(draws)
