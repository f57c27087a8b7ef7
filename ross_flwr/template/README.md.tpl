# $name

Agents that learn together along the edges of a graph, with ross_flwr on [Flower](https://flower.ai). The model and the
data are in `$module/task.py`: begin there.

```bash
python -m pytest                                                     # the tests (pip install pytest)
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1                # use this environment
flwr run . --stream --federation-config "num-supernodes=4"           # four agents, in Flower's simulation: about a minute and a half on two busy cores
flwr run . --stream --run-config "algorithm='dpsgd' num-rounds=5"    # keys that stand in pyproject.toml; add others there first: `ross-flwr config` lists all
```

`flwr run` waits 15 seconds for the SuperLink that it starts. On a slow or busy machine, start it first, in another terminal in
which the variable is set and this environment's `bin` is on `PATH`:
`flower-superlink --insecure --simulation --host 127.0.0.1 --port 39091`.

On devices, `--node-config` tells each SuperNode which data is its own, as `load_data` reads it. With `transport="direct"` agents
talk to each other and not through Flower. In a checkout of ross_flwr, `APP=PATH-OF-THIS-FOLDER deploy/local.sh` starts a whole
deployment on one machine, with TLS, and says where the results are. In the simulation, add `results='FOLDER'`, an absolute path,
to `--run-config` to keep them.
