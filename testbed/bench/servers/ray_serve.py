"""Ray Serve with ``@serve.batch``. Runs in a virtual environment of its own."""

import os
import sys
import time

import torch
from ray import serve
from starlette.requests import Request
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@serve.deployment(
    num_replicas=int(os.environ["BENCH_WORKERS"]),
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0.5},
)
class Classify:
    """Ray Serve deployment that classifies batches of texts."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
        folder = os.environ["BENCH_MODEL"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def answer(self, texts: list[tuple[str, ...]]) -> list[list[float]]:
        """Return the probabilities of each text of a batch."""
        with torch.inference_mode():
            inputs = self.tokenizer(
                *map(list, zip(*texts, strict=True)),
                truncation=True,
                max_length=256,
                padding=True,
                return_tensors="pt",
            )
            return self.model(**inputs).logits.softmax(-1).tolist()

    async def __call__(self, request: Request) -> dict[str, object]:
        """Return the response body of one request."""
        body = await request.json()
        texts = (body["text"], body["pair"]) if "pair" in body else (body["text"],)
        return {"probabilities": await self.answer(texts)}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classify.bind(), route_prefix="/classify")
    while True:
        time.sleep(3600)
