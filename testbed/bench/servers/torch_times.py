"""Time PyTorch on the whole encoder; print JSON. The argument is a job in JSON."""

import json
import sys

import torch
from timing import time_calls
from transformers import AutoModel

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
model = AutoModel.from_pretrained(job["model"], add_pooling_layer=False).eval()


def make_call(run, bf16=False):
    def call(rows, tokens):
        ids = torch.full((rows, tokens), 2003)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            run(input_ids=ids, attention_mask=torch.ones_like(ids))

    return call


calls = {
    "torch eager": make_call(model),
    "torch bf16 autocast": make_call(model, bf16=True),
    "torch.compile": make_call(torch.compile(model, dynamic=False)),
}
print(json.dumps(time_calls(calls, job["shapes"], job["calls"], job["runs"])))
