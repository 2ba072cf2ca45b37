"""Learn what people prefer."""
