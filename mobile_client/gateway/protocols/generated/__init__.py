"""Messages of the Open Inference Protocol over gRPC; see README.md for how they are generated."""
