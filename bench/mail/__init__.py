"""What the weekly digest costs: DynamoDB, S3, CPU, by reader and scaled to a million."""
