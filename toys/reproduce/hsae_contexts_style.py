"""How contexts look: strength by weight of type and thickness of line, colour only besides."""

LEVELS = 5

STYLE = """
:root { --a1: #fff6d9; --a2: #ffeab0; --a3: #ffdc85; --a4: #ffcb57; --a5: #ffb829;
  --mark: #6b3d00; --link: #0b4fa8; --panel: #f4f4f6; }
@media (prefers-color-scheme: dark) { :root { --a1: #2b2614; --a2: #352c13; --a3: #413513;
  --a4: #4d3e10; --a5: #5a480c; --mark: #ffd479; --link: #8ab8ff; --panel: #1f2023; } }
a { color: var(--link); } html { scroll-behavior: auto; }
h3 { margin: 2rem 0 .3rem; } h4, h5, h6 { margin: 1rem 0 .2rem; font-size: 15px; }
.facts { margin: .2rem 0; color: var(--faint); font-size: 14px; }
article { border-top: 1px solid var(--line); }
.children { margin-left: .4rem; padding-left: .9rem; border-left: 3px solid var(--rule); }
ol.contexts, nav ul { list-style: none; margin: .3rem 0; padding: 0; }
ol.contexts li { margin: .25rem 0; padding: .2rem .5rem; background: var(--panel);
  border-radius: 4px; overflow-wrap: anywhere; }
.code { font-variant-numeric: tabular-nums; font-weight: 600; margin-right: .4rem; }
.story { white-space: pre-wrap; unicode-bidi: isolate; }
mark { color: inherit; border-bottom: 1px solid var(--mark); padding: 0 1px; border-radius: 2px; }
mark.a1 { background: var(--a1); }
mark.a2 { background: var(--a2); font-weight: 500; }
mark.a3 { background: var(--a3); font-weight: 600; border-bottom-width: 2px; }
mark.a4 { background: var(--a4); font-weight: 700; border-bottom-width: 2px; }
mark.a5 { background: var(--a5); font-weight: 800; border-bottom-width: 3px; }
mark.here { outline: 2px solid var(--mark); margin: 0 2px; border-bottom-width: 0; }
details { margin: .3rem 0; } summary { cursor: pointer; color: var(--link); padding: .25rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
td.peaks, th.peaks { text-align: left; }
@media (max-width: 600px) { body { margin: 1rem auto; } .children { margin-left: 0;
  padding-left: .6rem; } nav ul { display: block; } nav li { padding: .3rem 0; } }
"""
