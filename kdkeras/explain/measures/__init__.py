"""Is the explanation true? Measures of an explanation against the model itself.

- Does the score follow the order of the attributions? `deletion`, `insertion`.
- Does it change by as much as they say? `mu_fidelity`, `infidelity`.
- Do they stay when the sample hardly changes, and change when the model does? `max_sensitivity`, `average_stability`,
  `model_randomisation`.
- How many places do they name? `sparseness`, `complexity`.
- Do they point at the object? `pointing_game`.

`faithfulness` puts them together.
"""

from kdkeras.explain.measures.concentration import complexity as complexity
from kdkeras.explain.measures.concentration import sparseness as sparseness
from kdkeras.explain.measures.curves import PerturbationCurve as PerturbationCurve
from kdkeras.explain.measures.curves import deletion as deletion
from kdkeras.explain.measures.curves import insertion as insertion
from kdkeras.explain.measures.fidelity import infidelity as infidelity
from kdkeras.explain.measures.fidelity import mu_fidelity as mu_fidelity
from kdkeras.explain.measures.pointing import pointing_game as pointing_game
from kdkeras.explain.measures.randomisation import Randomisation as Randomisation
from kdkeras.explain.measures.randomisation import model_randomisation as model_randomisation
from kdkeras.explain.measures.stability import average_stability as average_stability
from kdkeras.explain.measures.stability import max_sensitivity as max_sensitivity
from kdkeras.explain.measures.together import Faithfulness as Faithfulness
from kdkeras.explain.measures.together import faithfulness as faithfulness
