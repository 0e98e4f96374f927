"""The bundle: the folder with model, tokenizer and router that every tier loads."""
