"""Choose the set of latents to integrate out.

Everything admissible goes. Of two latents that are multiplied together only one can: the sites to
keep are a vertex cover of the clashes, of least size in elements, since that is what HMC then has
to sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autmarg.analysis.admissible import Admissible
from autmarg.errors import Refusal, RequestError, did_you_mean
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.plan.timing import CHAINS

if TYPE_CHECKING:
    import networkx as nx

NONGAUSSIAN = ("auto", "off", "whiten", "quadrature")
_EXACT_LIMIT = 24  # sites in one connected set of clashes up to which the cover is least


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        marginalize: "auto", "all" or names.
        keep: names.
        reparameterize: "auto", "off", "noncentred" or names.
        chains: "auto", "sequential" or "parallel".
        nongaussian: "auto", "off", "whiten" or "quadrature".
        under: names of the observed sites under which that is done; all of them where there is
            none.
    """

    marginalize: str | tuple[str, ...] = "auto"
    keep: tuple[str, ...] = ()
    reparameterize: str | tuple[str, ...] = "auto"
    chains: str = "auto"
    nongaussian: str = "auto"
    under: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        marginalize: str | Sequence[str],
        keep: Sequence[str] | str,
        reparameterize: str | Sequence[str] = "auto",
        chains: str = "auto",
        nongaussian: str | Mapping[str, str] = "auto",
    ) -> Request:
        """Check the options of ``transform``.

        Raises:
            RequestError: an unknown word, or a name both to integrate out and to keep or to
                non-centre.
        """
        keep = (keep,) if isinstance(keep, str) else _names("keep", keep)
        names = _words("marginalize", marginalize, ("auto", "all"))
        centre = _words("reparameterize", reparameterize, ("auto", "off", "noncentred"))
        for others, verb in ((keep, "kept"), (centre, "non-centred")):
            both = not isinstance(names, str) and not isinstance(others, str)
            if both and (both := set(names) & set(others)):
                raise RequestError(
                    f"{sorted(both)} should be integrated out by one option and {verb} by another; "
                    "expected each site in one of them"
                )
        if chains not in CHAINS:
            raise RequestError(f"chains={chains!r}: expected {', '.join(map(repr, CHAINS))}")
        return cls(names, keep, centre, chains, *_nongaussian(nongaussian))

    def is_under(self, site: str) -> bool:
        """Whether what is asked for by ``nongaussian`` is asked for under an observed site."""
        return not self.under or site in self.under


def _nongaussian(value: str | Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """What is done under a likelihood that is not Gaussian, and under which sites."""
    if not isinstance(value, Mapping):
        return str(_words("nongaussian", value, NONGAUSSIAN)), ()
    for word in value.values():
        _words("nongaussian", word, NONGAUSSIAN)
    asked = {word: None for word in value.values() if word != "off"}
    if len(asked) > 1:
        raise RequestError(
            f"nongaussian={dict(value)!r}: expected one of {', '.join(map(repr, asked))} for all "
            "sites, and 'off' for the others"
        )
    under = tuple(site for site, word in value.items() if word != "off")
    return (next(iter(asked)), under) if asked else ("off", ())


def _words(option: str, value: str | Sequence[str], words: Sequence[str]) -> str | tuple[str, ...]:
    """A word that is known, or names."""
    if not isinstance(value, str):
        return _names(option, value)
    if value not in words:
        expected = ", ".join(map(repr, words))
        hint = did_you_mean(value, words) or f" (did you mean [{value!r}]?)"
        raise RequestError(f"{option}={value!r}: expected {expected} or a list of site names{hint}")
    return value


def _names(option: str, value: Any) -> tuple[str, ...]:
    """A list of site names."""
    if not isinstance(value, Iterable) or not all(isinstance(name, str) for name in value):
        raise RequestError(f"{option}={value!r}: expected a list of site names, such as ['u']")
    return tuple(value)


@dataclass(frozen=True, eq=False)
class Selection:
    """Members in program order, and why each of the other latents stays."""

    members: tuple[Sample, ...]
    refusals: dict[str, Refusal]


def select(
    program: Program, judged: Admissible, request: Request, sampled: Mapping[str, Refusal]
) -> Selection:
    """The members to integrate out, without the ``sampled`` ones (name → why).

    Raises:
        RequestError: a name is no latent site, or a request fails a precondition.
    """
    _check_names(program, request)
    refusals = dict(judged.refusals)
    for name in request.keep:
        refusals[name] = Refusal(name, "kept on request", f"'{name}' is sampled, as keep asks")
    refusals |= sampled
    left = {*request.keep, *sampled}
    names = [c.name for c in judged.candidates if c.name not in left]
    if isinstance(request.marginalize, tuple):
        _check_request(judged, request.marginalize)
        for name in set(names) - set(request.marginalize):
            words = f"'{name}' is not named in marginalize"
            refusals[name] = Refusal(name, "not requested", words)
        names = [n for n in names if n in request.marginalize]
    sizes = {c.name: c.size for c in judged.candidates}
    for name in cover([p for p in judged.clashes if p <= set(names)], sizes):
        clash = next(r for p, r in judged.clashes.items() if name in p and p <= set(names))
        refusals[name] = replace(clash, site=name)
        names.remove(name)
    members = tuple(c for c in judged.candidates if c.name in names)
    return Selection(members, refusals)


def _check_names(program: Program, request: Request) -> None:
    asked = (
        *request.keep,
        *(
            request.marginalize
            if request.marginalize != "auto" and request.marginalize != "all"
            else ()
        ),
    )
    latents = [n.name for n in program.latents]
    for name in asked:
        if name in latents:
            continue
        observed = name in program and isinstance(program[name], Observe)
        found = "is an observed site" if observed else "is not a latent site"
        raise RequestError(
            f"'{name}' {found} of model '{program.name}'{did_you_mean(name, latents)}; expected "
            f"one of {', '.join(latents)}"
        )


def check_under(program: Program, request: Request) -> None:
    """Raise where ``nongaussian`` names what is no observed site.

    Raises:
        RequestError: it does.
    """
    observed = [n.name for n in program.observed]
    for name in request.under:
        if name not in observed:
            raise RequestError(
                f"nongaussian names '{name}', which is no observed site of model "
                f"'{program.name}'{did_you_mean(name, observed)}; expected some of "
                f"{', '.join(observed)}"
            )


def _check_request(judged: Admissible, names: tuple[str, ...]) -> None:
    failed = tuple(judged.refusals[n] for n in names if n in judged.refusals)
    clashes = tuple(r for pair, r in judged.clashes.items() if pair <= set(names))
    if failed or clashes:
        raise RequestError(
            f"cannot integrate out {list(names)}, as marginalize asks:", (*failed, *clashes)
        )


def cover(edges: Iterable[frozenset[str]], weights: dict[str, int]) -> list[str]:
    """A vertex cover of least weight (of the clashes), sorted by name.

    Exact for connected sets of up to 24 sites; above, the 2-approximation of Bar-Yehuda and Even
    (1981).
    """
    edges = list(edges)
    if not edges:
        return []
    import networkx as nx  # slow to import

    graph = nx.Graph()
    for a, b in edges:
        graph.add_edge(a, b)
    chosen: set[str] = set()
    for part in nx.connected_components(graph):
        piece = graph.subgraph(part)
        if len(part) > _EXACT_LIMIT:
            nx.set_node_attributes(piece, {n: weights[n] for n in part}, "weight")
            chosen |= nx.algorithms.approximation.min_weighted_vertex_cover(piece, "weight")
        else:
            chosen |= _least_cover(nx.Graph(piece), weights)
    return sorted(chosen)


def _least_cover(graph: nx.Graph[Any], weights: dict[str, int]) -> set[str]:
    """Branch on the vertex with most edges: it is in the cover, or all its neighbours are."""
    if graph.number_of_edges() == 0:
        return set()
    vertex = max(sorted(graph), key=graph.degree)
    neighbours = set(graph[vertex])
    without = graph.copy()
    without.remove_node(vertex)
    one = {vertex} | _least_cover(without, weights)
    rest = graph.copy()
    rest.remove_nodes_from({vertex} | neighbours)
    other = neighbours | _least_cover(rest, weights)
    return min(one, other, key=lambda s: (sum(weights[n] for n in s), sorted(s)))
