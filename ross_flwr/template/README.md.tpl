# $name

Agents that learn together along the edges of a graph, by ross_flwr on [Flower](https://flower.ai). `$module/task.py`
holds the model and the data: begin there.

```bash
python -m pytest                                                     # the tests
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1                # use the environment that is there
flwr run . --stream --federation-config "num-supernodes=4"           # four agents, in Flower's simulation
flwr run . --stream --run-config "algorithm='dpsgd' num-rounds=5"    # other keys; `ross-flwr config` tells all
```

On devices each SuperNode is told its data by `--node-config`, as `load_data` reads it; with `transport="direct"` agents talk
to each other and not through Flower. In a checkout of ross_flwr a whole deployment on one machine, with TLS, is
`APP=PATH-OF-THIS-FOLDER deploy/local.sh`.
