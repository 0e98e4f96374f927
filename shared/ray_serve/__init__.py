"""The edge or the cloud as replicas of Ray Serve. Only `deployment` imports ray."""
