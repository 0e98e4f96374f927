"""The cloud with the runtime ``cuda`` on torch's CPU path, which no setting chooses."""

from functools import partial

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.inference.devices import TORCH_CPU
from shared.serving.server import run_server

run_server(partial(create_app, devices=[TORCH_CPU]), CloudSettings)
