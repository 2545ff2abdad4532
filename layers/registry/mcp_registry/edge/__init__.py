"""Edge: events in, answers out: requests of API Gateway, batches of SQS, jobs of EventBridge."""
