"""How the report looks: on a light and a dark screen, on a telephone, on paper."""

STYLE = """
body { margin: 0; background: #f7f6f2; color: #22302a; font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { margin: 0 0 12px; font-size: 26px; }
h2 { margin: 0 0 10px; font-size: 18px; color: #2f6b4f; }
section { background: #fff; border: 1px solid #e2e0d8; border-radius: 8px; padding: 16px 20px; margin: 18px 0; }
.big { font-size: 20px; margin: 0 0 8px; color: #c1440e; }
.note { color: #66726c; margin: 0 0 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; border-bottom: 2px solid #2f6b4f; padding: 4px 14px 4px 0; font-weight: 600; }
td { border-bottom: 1px solid #eceae3; padding: 4px 14px 4px 0; vertical-align: top; }
.wide td, .wide th { white-space: nowrap; }
.facts td { white-space: pre-wrap; }
.facts td:first-child { color: #66726c; white-space: nowrap; }
.marked td { font-weight: 600; }
.state-stopped td { color: #8a948f; }
.state-failed td { color: #b00020; }
.state-running td { color: #1c6e8c; }
img { max-width: 100%; display: block; margin: 6px 0; }
code { background: #f0efe9; border-radius: 4px; padding: 2px 6px; overflow-wrap: anywhere; }
h3 { margin: 14px 0 6px; font-size: 15px; color: #b00020; }
pre { overflow-x: auto; background: #f0efe9; padding: 8px; font-size: 12px; }
summary { color: #66726c; margin: 6px 0; cursor: pointer; }
ul { margin: 0; padding-left: 20px; }
li { margin: 4px 0; }
@media (prefers-color-scheme: dark) {
  body { background: #171b19; color: #dfe6e2; }
  section { background: #212724; border-color: #36403b; }
  h2 { color: #86c9a5; }
  .big { color: #ff9466; }
  th { border-color: #86c9a5; }
  td { border-color: #36403b; }
  .note, .facts td:first-child, summary { color: #9db0a6; }
  code, pre { background: #2c3430; }
  .state-stopped td { color: #85928b; }
  .state-failed td, h3 { color: #ff8a80; }
  .state-running td { color: #7cc7e8; }
  img { background: #fff; border-radius: 6px; padding: 6px; box-sizing: border-box; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
