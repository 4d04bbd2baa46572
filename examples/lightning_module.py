"""A Lightning module: the estimator is built once and called in `training_step`."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from orbitdiff.kernels import GaussianKernel, GeometricSigma
from orbitdiff.orbit import RotationOrbit


class Denoiser(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(28, 128), nn.SiLU(), nn.Linear(128, 27))
        self.kernel = GaussianKernel(GeometricSigma(0.1, 10.0))
        self.orbit = RotationOrbit(self.kernel)  # added

    def training_step(self, batch, batch_index):
        (x_0,) = batch
        t = torch.rand(len(x_0), device=x_0.device)
        x_t = self.kernel.sample(x_0, t).x_t
        target = self.orbit(x_t, x_0, t).value  # was: target = x_0
        flat = torch.cat([x_t.flatten(1) / (1 + 9 * t[:, None]), t[:, None]], 1)
        loss = (self.net(flat).unflatten(1, (9, 3)) - target).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


lightning.seed_everything(0, verbose=False)
clouds = torch.randn(256, 9, 3)
loader = DataLoader(TensorDataset(clouds - clouds.mean(1, keepdim=True)), batch_size=64)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = lightning.Trainer(max_epochs=25, accelerator="cpu", enable_model_summary=False, **quiet)
trainer.fit(Denoiser(), loader)
print(f"{trainer.global_step} steps, loss {float(trainer.callback_metrics['loss']):.3f}")
