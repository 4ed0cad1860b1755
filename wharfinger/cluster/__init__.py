"""The Kubernetes API from the client's side: client, informer, work queue."""
