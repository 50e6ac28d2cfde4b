"""Draws of a diffusion prior given an event, and the event's probability."""

from dasim.conditioning.guidance import AbstractGuidance as AbstractGuidance
from dasim.conditioning.guidance import ConstantGuidance as ConstantGuidance
from dasim.conditioning.guidance import MomentGuidance as MomentGuidance
from dasim.conditioning.inpainting import inpainted_draws as inpainted_draws
from dasim.conditioning.probability import EventProbability as EventProbability
from dasim.conditioning.probability import conditional_draws as conditional_draws
from dasim.conditioning.probability import event_probability as event_probability
