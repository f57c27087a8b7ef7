"""The keys of differential privacy."""

from ross_flwr.algorithms import Algorithm
from ross_flwr.config import ConfigError, group, option
from ross_flwr.privacy.privacy import CLIP, EPSILON, Privacy

__all__ = ["PrivacyOptions"]


@group("Privacy")
class PrivacyOptions:
    """How training examples are protected."""

    dp_clip: float = option(
        0.0, "C, the longest gradient of one example; 0 for no privacy, except in pdsl, which then takes 1", minimum=0.0
    )
    dp_noise: float = option(
        0.0, "z: the noise on a gradient has the standard deviation z · 2C/batch-size", minimum=0.0
    )
    dp_epsilon: float = option(
        0.0, "ε of the whole run for each agent, to which the noise is fitted; 0 to go by dp-noise", minimum=0.0
    )
    dp_delta: float = option(1e-5, "δ, for which ε holds", minimum=0.0, maximum=1.0)

    def read(self, algorithm: Algorithm) -> Privacy | None:
        """Return how examples are protected; None if they are not, unless the method is a private one.

        Raises
        ------
        ConfigError
            When the keys do not fit each other.
        """
        if not self.dp_clip and not algorithm.private:
            if self.dp_noise or self.dp_epsilon:
                raise ConfigError(
                    "dp-noise and dp-epsilon need gradients of bounded length: use dp-clip = 1.0 with them, say"
                )
            return None
        epsilon = EPSILON if algorithm.private and not (self.dp_noise or self.dp_epsilon) else self.dp_epsilon
        return Privacy(clip=self.dp_clip or CLIP, noise=self.dp_noise, epsilon=epsilon, delta=self.dp_delta)
