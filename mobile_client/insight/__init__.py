"""Why a request went where it did, and what other prices would have done."""
