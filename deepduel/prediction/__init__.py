"""The models of a finished run -> predictions and exported models."""
