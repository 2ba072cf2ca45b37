"""Learning from own answers: what grpo and rloo add to TRL's online trainers."""
