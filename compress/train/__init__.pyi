from .finetuning import finetune as finetune
from .settings import Training as Training
