import torch

from faceswap_diffusion.training.discriminator import PatchDiscriminator, discriminator_loss


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert discriminator_loss(real, fake).item() == (0 + 0.5) / 2 + (0 + 1) / 2


def test_a_verdict_depends_on_its_patch_alone():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator().eval()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    changed = images.clone()
    changed[..., 40:] = 0
    before, after = discriminator(images), discriminator(changed)
    same = (before == after).all(dim=(0, 1, 2))
    assert same.any()
    assert not same.all()


def test_it_learns_to_tell_blurred_from_sharp():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for _ in range(60):
        sharp = torch.randn(4, 3, 32, 32).clamp(-1, 1)
        blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
        loss = discriminator_loss(discriminator(sharp), discriminator(blurred))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # 2 at the start
