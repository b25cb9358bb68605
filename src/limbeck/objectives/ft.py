"""Factor transfer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, check_number, check_whole
from limbeck.objectives.base import InitialStage, Objective, Paper
from limbeck.signals import Batch, Signals, last_map

_SLOPE = 0.1


class FT(Objective, name="ft"):
    """Difference between the factors of student and teacher: what a translator and a paraphraser make of their last maps.

    The last maps (B, C, H, W) of each network, of any number of channels. A first stage trains the paraphraser, the encoder of
    an autoencoder of the teacher's maps; the student rests. In the main stage the paraphraser is fixed, and the student and
    its translator, an encoder of the same form with batch norm, learn to give the same factors. The larger of two factors is
    averaged to the size of the smaller, and they are compared as attention maps: the mean over channels of the squares, of
    unit length for each sample. Samples are weighted by ``batch.weight`` when there is one. Everything is discarded after
    training. Factors are compared in float32.

    Args:
        rate: channels of a factor for each channel of the teacher's map, greater than 0.
        init_epochs: epochs of the first stage; 0 for none, which leaves the paraphraser as it was drawn.
        init_lr: learning rate of the first stage; None for the student's. The preset has the 0.01 of the benchmark.

    Scale:
        A mean over positions of unit-length maps, so at most √(2/(H·W)), 0.18 for 8×8 positions; near 0.045 at
        initialisation for 64 channels of 8×8 (measured). Zero when the attention maps of the factors agree. The first
        stage's loss is the mean square error of the reconstruction, of the size of the teacher's squares.

    Differences:
        The paper divides a whole factor by its length; here, as in the benchmark of the CRD paper, the mean over the channels
        of its squares. The benchmark's learning rate of 0.01 for the first stage, in the presets, is for students that are
        ResNets or WRNs; for others it takes the student's own, as init_lr=None does. Convolutions before a batch
        norm have no bias, since it would be taken out again. Batch norm takes its statistics over the samples of one process.
        Without a first stage, as when this is built and trained by itself, the paraphraser stays random.
    """

    needs = frozenset({"stages"})
    # By the batch norm of the translator, whose statistics are of the batch in one process.
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{B H W} \sum_i \left\lVert A(f^S_i) - A(f^T_i) \right\rVert_1, \quad "
        r"f^S = \mathrm{translator}(F^S), \quad f^T = \mathrm{paraphraser}(F^T), \quad "
        r"A(f) = \frac{a}{\lVert a \rVert_2}, \quad a = \frac{1}{C} \sum_c f_c^2"
    )
    paper = Paper("Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018, arxiv="1802.04977")
    presets = {"ft": "ce + 200*ft(init_lr=0.01)", "ft+kd": "ce + 200*ft(init_lr=0.01) + kd(temperature=4)"}

    def __init__(self, *, rate: float = 0.5, init_epochs: int = 30, init_lr: float | None = None) -> None:
        super().__init__()
        check_number("rate", rate, low=0.0, open_low=True)
        check_whole("init_epochs", init_epochs, low=0)
        if init_lr is not None:
            check_number("init_lr", init_lr, low=0.0, open_low=True)
        self.rate, self.init_epochs, self.init_lr = rate, init_epochs, init_lr
        self.translator: nn.Sequential | None = None
        # The paraphraser belongs to one objective: to that of the first stage, or to this one when there is no such stage.
        # In a tuple, the first stage's is no submodule of this one: who freezes, trains, saves or averages over processes
        # what the stages' objectives hold meets it once, with its owner, and a deep copy of both keeps the two together.
        # None of its layers knows a training mode, so that there is none to set in the main stage.
        self._autoencoder: tuple[_Autoencoder, ...] = ()
        self.paraphraser: nn.Sequential | None = None

    @property
    def only_initial(self) -> bool:
        return False

    def initial_stage(self) -> InitialStage | None:
        if self.init_epochs == 0:
            return None
        # The same one each time that this is asked.
        self._autoencoder = self._autoencoder or (_Autoencoder(rate=self.rate),)
        return InitialStage(self._autoencoder[0], self.init_epochs, ("objective",), self.init_lr)

    def build(self, student: Signals, teacher: Signals) -> None:
        ours, theirs = last_map(student), last_map(teacher)
        factors = _factors(theirs.shape[1], self.rate)
        self.translator = _encoder(ours.shape[1], factors, batch_norm=True).to(ours.device)
        if self._shared() is None:
            self.paraphraser = _fixed(_encoder(theirs.shape[1], factors, batch_norm=False)).to(theirs.device)

    def _shared(self) -> nn.Sequential | None:
        """The paraphraser that a first stage trains, once that stage's objective is built."""
        return self._autoencoder[0].encoder if self._autoencoder else None

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        # One that this has built itself comes first: what was built later elsewhere is not what it was saved with.
        paraphraser = self._shared() if self.paraphraser is None else self.paraphraser
        if self.translator is None or paraphraser is None:
            raise SettingError(
                "ft has no translator yet: call build(student, teacher) before you create the optimizer."
            )
        ours = self.translator(last_map(student))
        with torch.no_grad():
            theirs = paraphraser(_in_dtype_of(paraphraser, last_map(teacher)))
        return {"ft": losses.mean(_distances(*losses.align(ours, theirs)), weight=batch.weight)}


class _Autoencoder(Objective):
    """Mean squared error of the reconstruction of the teacher's last map (B, C, H, W): the first stage of :class:`FT`.

    It has no name of its own in expressions, as it teaches no student; ``name`` is that of its loss in the metrics.
    """

    name = "paraphraser"
    needs = frozenset({"stages"})
    needs_student = False

    def __init__(self, *, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self.encoder: nn.Sequential | None = None
        self.decoder: nn.Sequential | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        maps = last_map(teacher)
        channels = maps.shape[1]
        factors = _factors(channels, self.rate)
        self.encoder = _encoder(channels, factors, batch_norm=False).to(maps.device)
        widths = (factors, factors, channels, channels)
        self.decoder = _layers(widths, _transposed_convolution, batch_norm=False).to(maps.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.encoder is None or self.decoder is None:
            raise SettingError("ft's paraphraser is not built yet: call build(student, teacher) before the optimizer.")
        maps = last_map(teacher)
        found = self.decoder(self.encoder(_in_dtype_of(self.encoder, maps)))
        return {"paraphraser": losses.mean(losses.squared_error(found, maps), weight=batch.weight)}


def _factors(channels: int, rate: float) -> int:
    return max(1, int(channels * rate))


def _encoder(channels: int, factors: int, *, batch_norm: bool) -> nn.Sequential:
    return _layers((channels, channels, factors, factors), _convolution, batch_norm=batch_norm)


def _layers(
    widths: tuple[int, ...], layer: Callable[[int, int, bool], nn.Module], *, batch_norm: bool
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for given, made in pairwise(widths):
        modules += [layer(given, made, not batch_norm), *([nn.BatchNorm2d(made)] if batch_norm else [])]
        modules.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*modules)


def _convolution(given: int, made: int, bias: bool) -> nn.Module:
    return nn.Conv2d(given, made, kernel_size=3, padding=1, bias=bias)


def _transposed_convolution(given: int, made: int, bias: bool) -> nn.Module:
    return nn.ConvTranspose2d(given, made, kernel_size=3, padding=1, bias=bias)


def _fixed(network: nn.Sequential) -> nn.Sequential:
    """The network with buffers for parameters: they are saved with it, and no one can ask a gradient of them."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return network


def _in_dtype_of(network: nn.Sequential, maps: Tensor) -> Tensor:
    # A teacher may answer in half precision where nothing else does.
    weight = network[0].weight
    assert isinstance(weight, Tensor)
    return maps.to(weight.dtype)


@losses.in_float32
def _distances(ours: Tensor, theirs: Tensor) -> Tensor:
    return (losses.attention(ours) - losses.attention(theirs)).abs().mean(dim=1)
