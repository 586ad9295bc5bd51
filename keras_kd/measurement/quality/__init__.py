"""How good predictions are: figures of scikit-learn, sacrebleu and rouge-score."""
