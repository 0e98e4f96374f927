"""LitServe with dynamic batching. Runs in a virtual environment of its own."""

import os
import sys
from typing import Any

import litserve as ls
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Classify(ls.LitAPI):
    """LitServe API that classifies batches of texts."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
        folder = os.environ["BENCH_MODEL"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def decode_request(self, request: dict[str, str]) -> tuple[str, ...]:
        """Return the text of a request, and its second text if it has one."""
        return (request["text"], request["pair"]) if "pair" in request else (request["text"],)

    def predict(self, texts: list[tuple[str, ...]]) -> list[list[float]]:
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

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """Return the response body of one text."""
        return {"probabilities": output}


if __name__ == "__main__":
    api = Classify(max_batch_size=32, batch_timeout=0.005)
    server = ls.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"])
    )
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
