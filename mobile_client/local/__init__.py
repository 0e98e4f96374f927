"""The model on the mobile: policies, own layers, hidden states and certificate."""
