"""nexus-tasks: background tasks on SQS and Lambda. Start reading in `social.catalogue`."""
