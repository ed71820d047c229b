"""What is inside of two models: their layers side by side, how alike these are, what single units stand for."""

from kdkeras.explain.insides.selectivity import ClassSelectivity as ClassSelectivity
from kdkeras.explain.insides.selectivity import class_selectivity as class_selectivity
from kdkeras.explain.insides.similarity import LayerSimilarity as LayerSimilarity
from kdkeras.explain.insides.similarity import layer_similarity as layer_similarity
from kdkeras.explain.insides.structure import LayerRow as LayerRow
from kdkeras.explain.insides.structure import ModelStructure as ModelStructure
from kdkeras.explain.insides.structure import StructureComparison as StructureComparison
from kdkeras.explain.insides.structure import compare_structure as compare_structure
