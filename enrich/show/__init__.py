"""What a person sees while it runs: progress, bars in notebooks, logs. Nothing here changes what is done."""
