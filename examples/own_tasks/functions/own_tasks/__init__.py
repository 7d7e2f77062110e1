"""An application's own tasks: what it declares is in `catalogue`, what it does in `work`."""
