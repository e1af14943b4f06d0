"""Networks that look at frequencies."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Gained, Input, case
from paddle import nn


@case("mel-spectrogram", "signals", Input("wave", "float32", (None, 800), (2, 800)))
class MelSpectrogram(nn.Layer):
    """A speech front end: frames, a Fourier transform, mel bands, a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = self.create_parameter([65, 20], default_initializer=nn.initializer.Uniform(0.0, 0.1))

    def forward(self, wave: paddle.Tensor) -> paddle.Tensor:
        spectrum = paddle.signal.stft(wave, 128, 64)
        power = paddle.square(paddle.abs(spectrum))
        mel = paddle.matmul(paddle.transpose(power, [0, 2, 1]), self.bands)
        return 10.0 * paddle.log10(paddle.clip(mel, min=1e-3))


@case("fourier-layer", "signals", Input("x", "float32", (None, 4, 16, 16), (2, 4, 16, 16)))
class FourierLayer(nn.Layer):
    """Fast Fourier convolution and a global filter: to frequencies, a product there, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2D(8, 8, 1)
        self.filter = self.create_parameter([4, 16, 9, 2])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        spectrum = paddle.fft.rfft2(x, norm="ortho")
        parts = F.relu(self.mix(paddle.concat([paddle.real(spectrum), paddle.imag(spectrum)], 1)))
        real, imaginary = paddle.split(parts, 2, 1)
        turned = paddle.complex(real, imaginary) * paddle.as_complex(self.filter)
        return paddle.fft.irfft2(turned, norm="ortho") + x


@case("fourier-kinds", "signals", Input("x", "float32", (None, 6, 15), (2, 6, 15)))
class FourierKinds(Gained):
    """Transforms forward and back, of even and odd length, with each normalisation."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        full = paddle.fft.fft(x, norm="forward")
        half = paddle.fft.rfft(x, axis=1)
        return (
            paddle.abs(full),
            paddle.imag(paddle.fft.ifft(full * 2.0, axis=1)),
            paddle.fft.irfft(half, axis=1),
            paddle.fft.irfft(paddle.fft.rfft(x, norm="ortho"), n=15, norm="ortho"),
            paddle.as_real(paddle.fft.fft2(x)) / 4.0,
        )
