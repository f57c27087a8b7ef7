[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "Agents that learn together."
license = { file = "LICENSE" }
requires-python = ">=3.11"
dependencies = ["flwr[simulation]>=1.39", "ross-flwr", "torch"]

[project.optional-dependencies]
dev = ["pytest>=8.3"]

[tool.hatch.build.targets.wheel]
packages = ["$module"]

[tool.flwr.app]
publisher = "me"
fab-format-version = 1
flwr-version-target = "1.42.0"
fab-include = ["$module/**/*.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "$module.server_app:app"
clientapp = "$module.client_app:app"

# Any key that `ross-flwr config` lists may stand here; only what stands here can be changed by `flwr run --run-config`.
[tool.flwr.app.config]
algorithm = "ross"
topology = "ring"
num-rounds = 10
batches-per-round = 5
learning-rate = 0.05
momentum = 0.5
num-nodes = 0
transport = "relay"
phase-timeout = 60.0
results = ""

[tool.pytest.ini_options]
pythonpath = ["."]
