"""FastAPI with transformers, one text or pair per request, as in tutorials.

Runs in a virtual environment of its own, by uvicorn: ``plain:app``.
"""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
tokenizer = AutoTokenizer.from_pretrained(os.environ["BENCH_MODEL"])
model = AutoModelForSequenceClassification.from_pretrained(os.environ["BENCH_MODEL"]).eval()
app = FastAPI()


class Text(BaseModel):
    """Request body."""

    text: str
    pair: str | None = None


@app.post("/classify")
def classify(body: Text) -> dict[str, object]:
    """Return the probabilities of one text or pair; FastAPI calls this in its thread pool."""
    with torch.inference_mode():
        inputs = tokenizer(
            body.text, body.pair, truncation=True, max_length=256, return_tensors="pt"
        )
        return {"probabilities": model(**inputs).logits.softmax(-1)[0].tolist()}
