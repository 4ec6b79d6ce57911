import pytest
import torch

from faceswap_diffusion.training.objectives.discriminator import PatchDiscriminator, discriminator_loss, generator_loss

REAL, FAKE = torch.tensor([2.0, 0.5]).view(1, 1, 1, 2), torch.tensor([-3.0, 0.0]).view(1, 1, 1, 2)


def test_hinge_loss_by_hand():
    assert discriminator_loss(REAL, FAKE).tolist() == [(0 + 0.5) / 2 + (0 + 1) / 2]


def test_weights_count_patches_by_hand():
    weights = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)
    assert discriminator_loss(REAL, FAKE, weights).tolist() == [0.25 * 0 + 0.75 * (0.5 + 1)]
    assert generator_loss(FAKE, weights).tolist() == [0.25 * 3 - 0.75 * 0]


def test_each_sample_has_its_own_mean_whatever_the_weights_of_the_others():
    real, fake = torch.cat([REAL, FAKE]), torch.cat([FAKE, REAL])
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    assert generator_loss(fake, weights).tolist() == [1.5, -2.0]
    assert discriminator_loss(real, fake, weights).tolist() == [0.75, 4 + 3.0]
    assert generator_loss(fake, torch.zeros_like(fake)).tolist() == [0.0, 0.0]  # an empty mask is no reason for NaN


@pytest.mark.parametrize(("num_halvings", "width"), [(2, 30), (3, 62)])
def test_a_patch_is_as_wide_as_the_docstring_says(num_halvings, width):
    images = torch.zeros(1, 3, 128, 128, requires_grad=True)
    verdicts = PatchDiscriminator(channels=8, num_halvings=num_halvings)(images)
    verdicts[0, 0, verdicts.shape[2] // 2, verdicts.shape[3] // 2].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(0).sum(0).nonzero()
    assert (seen.max() - seen.min() + 1).item() == width


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
    discriminator = PatchDiscriminator(channels=8)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for _ in range(60):
        sharp = torch.randn(4, 3, 32, 32).clamp(-1, 1)
        blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
        loss = discriminator_loss(discriminator(sharp), discriminator(blurred)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # 2 at the start
