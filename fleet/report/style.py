"""How pages look."""

from __future__ import annotations

from fleet.report import palette

_BODY = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 FONT;
  font-variant-numeric:tabular-nums}
main,body>header,body>footer{max-width:52rem;margin:0 auto;padding:0 1.25rem}
body>header{padding-top:3rem}
body>footer{padding-top:2rem;padding-bottom:3rem;color:var(--muted);font-size:.85rem}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .5rem}
h2{font-size:1.5rem;line-height:1.25;letter-spacing:-.01em;margin:0 0 .35rem}
h3{font-size:1.02rem;margin:2.25rem 0 .6rem}
p{margin:0 0 .8rem;max-width:44rem}
a{color:var(--series-1)}
.about{color:var(--muted);font-size:.88rem}
.question{color:var(--muted);font-size:1.08rem;margin-bottom:1rem}
.conclusion{font-size:1.22rem;line-height:1.45;font-weight:550;margin:1.1rem 0 .6rem;
  padding-left:1rem;border-left:3px solid var(--series-1)}
.conclusion.long{font-size:1.06rem;line-height:1.5;font-weight:500}
.held{color:var(--good)}.broken{color:var(--bad);font-weight:600}
.scenario+.scenario{margin-top:4.5rem;padding-top:3rem;border-top:1px solid var(--grid)}
nav ol{list-style:none;margin:1.5rem 0 3.5rem;padding:0;border-top:1px solid var(--grid)}
nav li{padding:.8rem 0;border-bottom:1px solid var(--grid)}
nav a{font-weight:600;text-decoration:none}nav a:hover{text-decoration:underline}
nav p{margin:.15rem 0 0;font-size:.94rem}
figure{margin:2.4rem 0 0}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figure h3{margin:0 0 .15rem}
figcaption{color:var(--muted);font-size:.94rem;margin-bottom:.75rem;max-width:44rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;line-height:1.4}
caption{text-align:left;font-weight:600;padding:0 0 .4rem}
th,td{padding:.38rem .9rem .38rem 0;text-align:left;vertical-align:top;
  border-bottom:1px solid var(--grid)}
thead th{color:var(--muted);font-weight:500;vertical-align:bottom}
thead th.number{white-space:normal}
tbody th{font-weight:500}
th.number,td.number{text-align:right;white-space:nowrap}
td.small{color:var(--muted);font-size:.85rem}
td:last-child,th:last-child{padding-right:0}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--panel);padding:.7rem .9rem;border-radius:6px;overflow-x:auto;margin:0 0 1rem}
.more{margin-top:1.8rem}
ul.notes{padding-left:1.1rem;max-width:44rem}
@media (max-width:34rem){figure svg{min-width:30rem}
  figure .wide{margin:0 -1.25rem;padding:0 1.25rem}
  body{font-size:15px}}
@media print{@page{margin:16mm 15mm}body{font-size:10pt}
  main,body>header{max-width:none;padding:0}
  body>header{padding-top:0}figure,tr,.conclusion{break-inside:avoid}
  h2,h3,caption{break-after:avoid}
  .scenario+.scenario{break-before:page;border-top:0;padding-top:0;margin-top:0}
  nav a{color:inherit}}
"""


def sheet() -> str:
    return palette.variables() + _BODY.replace("FONT", palette.FONT).strip()
