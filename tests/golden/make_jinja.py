"""Writes jinja/templates.json: templates, and what jinja2 makes of them when it is set up as transformers 4.57 and 5 set it up
(`chat_template_utils._compile_jinja_template`: an ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls,
a `tojson` of its own, `raise_exception`). Made with jinja2 3.1.6:

    python3 tests/golden/make_jinja.py

Each entry has a template and either `text` or, where jinja2 raises, `error`.
"""

import json
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.sandbox

VALUES = {
    "small": 1e-05, "big": 1e16, "half": 0.5, "whole": 2.0, "seven": 7, "minus": -7, "zero": 0, "yes": True, "no": False,
    "nothing": None, "text": "You are helpful.", "lines": "a\nb\n\nc\n", "quoted": "it's \"<b>&\"", "accent": "\u00e9t\u00e9 \u4f60\u597d \U0001f600",
    "spaces": "  x  y\tz ", "empty": "", "list": [3, 1, 2], "words": ["b", "a", "C"], "mixed": [1, "two", 3.5, None, True, [1e-07]],
    "tree": {"b": 1, "a": {"z": [], "y": {}}, "e": '\u00e9\n"q"\u2028\x7f\x01'}, "numbers": {"x": 1e-05, "y": 1e22, "z": -0.0},
    "people": [{"name": "Ann", "age": 31}, {"name": "Bob", "age": 27}, {"name": "Cy"}],
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 2 + 2? "},
    {"role": "assistant", "content": "<think>\nsum\n</think>\n\n4"},
    {"role": "user", "content": "And \u00e9?"},
]

# Filled into {{ … }}.
EXPRESSIONS = r"""
v.small
v.big
v.half
v.whole
v.yes
v.nothing
v.mixed
v.numbers
v.tree
v.words
v.accent
[1e-05, 1e16, 1.0]
{'a': 1.5, 'b': none}
(1, 2)
(1,)
[v.quoted, 'a\nb', 'x\'y']
v.small|string
v.list|string
v.small|tojson
v.tree|tojson
v.tree|tojson(indent=2)
v.tree|tojson(indent=0)
v.tree|tojson(indent='\t')
v.tree|tojson(indent=none)
v.tree|tojson(separators=(',', ':'))
v.tree|tojson(separators=(',', ':'), indent=1)
v.tree|tojson(sort_keys=true)
v.tree|tojson(ensure_ascii=true)
v.tree|tojson(true)
v.tree|tojson(false, 4)
v.accent|tojson
v.accent|tojson(ensure_ascii=true)
v.mixed|tojson
v.numbers|tojson
v.quoted|tojson
v.undefined_name|tojson
(1, 'a')|tojson
v.text is sequence
v.list is sequence
v.tree is sequence
v.seven is sequence
v.nothing is sequence
v.missing is sequence
(1, 2) is sequence
v.text is iterable
v.list is iterable
v.seven is iterable
v.tree is iterable
v.text is mapping
v.tree is mapping
v.list is mapping
v.text is string
v.list is string
v.yes is number
v.half is number
v.seven is number
v.text is number
v.yes is integer
v.seven is integer
v.whole is integer
v.whole is float
v.seven is float
v.yes is boolean
v.zero is boolean
v.nothing is none
v.missing is defined
v.missing is undefined
v.nothing is defined
v.yes is true
v.no is false
v.zero is false
v.seven is odd
v.zero is even
v.seven is divisibleby 7
v.seven is eq 7
v.seven is ne 7
v.seven is gt 6
v.text is lower
'abc' is lower
'ABC' is upper
v.seven is in [7, 8]
v.tree.get is callable
v.text.upper is callable
v.text is callable
v.missing is callable
v.tree.nothing_like_it is callable
range is callable
v.seven is sameas 7
v.lines|indent
v.lines|indent(2)
v.lines|indent(2, true)
v.lines|indent(2, first=true, blank=true)
v.lines|indent('> ')
'a\r\nb'|indent(2)
''|indent(2)
''|indent(2, true)
v.quoted|e
v.quoted|escape
v.seven|e
v.text|center(30)
v.text|center(31)
'ab'|center(5)
'abc'|center(6)
v.text|center(3)
v.text|wordcount
v.spaces|wordcount
'it\'s a-b c_d'|wordcount
v.text|urlencode
v.accent|urlencode
'a/b?c=d&e~f'|urlencode
{'a b': 'c/d', 'e': 1}|urlencode
[('a', 'b c'), ('d', 'é')]|urlencode
v.text|upper
v.text|lower
v.text|title
v.text|capitalize
'hELLO wORLD'|capitalize
v.spaces|trim
'xxaxx'|trim('x')
v.text|length
v.accent|length
v.list|sort
v.list|sort(reverse=true)
v.words|sort
v.words|sort(case_sensitive=true)
v.list|join(', ')
v.mixed|join('|')
v.people|map(attribute='name')|join(',')
v.people|map(attribute='age', default=0)|join(',')
v.people|selectattr('age')|map(attribute='name')|list
v.people|selectattr('age', 'defined')|map(attribute='name')|list
v.people|rejectattr('age', 'defined')|map(attribute='name')|list
v.people|selectattr('name', 'equalto', 'Bob')|list
v.list|select('odd')|list
v.list|reject('gt', 1)|list
v.words|map('upper')|join
v.list|first
v.list|last
v.list|min
v.list|max
v.list|sum
v.list|reverse|list
v.text|reverse
v.words|unique|list
v.list|batch(2)|list
v.list|batch(2, 0)|list
v.list|slice(2)|list
v.tree|dictsort
v.tree|items|list
v.tree|list
v.tree|length
v.missing|default('d')
v.empty|default('d')
v.empty|default('d', true)
v.empty|d('x', boolean=true)
'3.7'|int
'x'|int(5)
'3.7'|float
3.99|int
'12'|int + 1
3.14159|round(2)
2.5|round
3.5|round
2.4|round(0, 'ceil')
-3|abs
v.text|replace('e', 'E')
v.text|replace('e', 'E', 1)
v.text|list|length
'%s and %s'|format(1, 'b')
'%05.1f|%-4s|%x'|format(3.14159, 'a', 255)
'%s-%02d' % (v.text, 3)
'%.2f' % 1.5
'%d%%' % 5
'%s' % v.text
'%s' % v.text|upper
'%s' % 'a' ~ 'b'
'%5s|%-5s|' % ('a', 'b')
'%r' % 'a'
'%x %X %o' % (255, 255, 8)
'%+d' % 5
'%e' % 12345.678
'%g' % 0.0001
'%s' % v.yes
'%s' % none
'%s' % v.small
'%(a)s' % {'a': 1}
'%d' % 'x'
'%s %s' % 'x'
'%c' % 'x'
7 % 3
-7 % 3
7 % -3
7 // 2
-7 // 2
7 / 2
6 / 2
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
1.5 + 1
0.1 + 0.2
7.5 // 2
-7.5 % 2
1e3
10 ** 20
1 / 3
v.seven * 2
'ab' * 3
[1] * 2
[1] + [2, 3]
'a' + 'b'
'a' ~ 1 ~ true ~ none
1 ~ 2
1 < 2 < 3
3 > 2 > 2
1 == 1.0
'a' < 'b'
'a' == 1
true == 1
none == none
[1, 2] == [1, 2]
{'a': 1} == {'a': 1}
[1, 2] < [1, 3]
'e' in v.text
'z' not in v.text
3 in v.list
'b' in v.tree
not v.empty
v.empty or 'x'
v.text and 'y'
0 or none
1 and 2
not none
'yes' if v.yes else 'no'
'yes' if v.no
v.list[0]
v.list[-1]
v.list[1:]
v.list[:-1]
v.list[::-1]
v.list[::2]
v.list[5]
v.list[-5:]
v.text[0]
v.text[-1]
v.text[4:7]
v.text[::-1]
v.text[100:]
v.accent[1:5]
v.tree['b']
v.tree['nope']
v.tree.nope
v.tree.nope.more
v.missing
v.missing.x
missing_name
missing_name.x
missing_name == none
missing_name ~ 'x'
missing_name|length
v.text.nothing
v.text.upper()
v.text.lower()
v.text.title()
v.text.capitalize()
v.text.swapcase()
v.text.casefold()
v.spaces.strip()
v.spaces.lstrip()
v.spaces.rstrip()
'xyxaxyx'.strip('xy')
'xxa'.lstrip('x')
v.text.split()
v.spaces.split()
v.spaces.split(' ')
'a,b,c'.split(',', 1)
'a,b,c'.split(',')[-1]
''.split()
''.split(',')
'a  b'.split(' ')
v.text.split(' ', maxsplit=1)
v.text.rsplit(' ', 1)
v.spaces.rsplit()
v.spaces.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',')
v.text.partition(' ')
v.text.rpartition(' ')
v.text.partition('?')
v.text.rpartition('?')
'7'.zfill(3)
'-7'.zfill(4)
'+7'.zfill(1)
v.text.removeprefix('You ')
v.text.removeprefix('x')
v.text.removesuffix('.')
'ab'.ljust(5) ~ '|'
'ab'.rjust(5, '*')
'ab'.center(5, '*')
'abc'.center(6, '*')
v.lines.splitlines()
v.lines.splitlines(true)
'a\r\nb\rc'.splitlines()
v.text.startswith('You')
v.text.startswith(('x', 'You'))
v.text.endswith('.')
v.text.endswith(('x', '.'))
v.text.find('are')
v.text.find('zzz')
v.text.rfind('e')
v.text.find('e', 7)
v.text.index('are')
v.text.index('zzz')
v.text.rindex('e')
v.text.count('e')
'aaaa'.count('aa')
v.text.replace('e', 'E', 1)
v.text.replace('', '-')
'abc'.isalpha()
'ab1'.isalnum()
'12'.isdigit()
'1½'.isdigit()
'½'.isnumeric()
'12'.isdecimal()
'  '.isspace()
''.isspace()
'abc'.islower()
'ABC1'.isupper()
'Ab Cd'.istitle()
'a1'.isidentifier()
'abc'.isascii()
'a\tb'.expandtabs(4)
', '.join(['a', 'b'])
', '.join([1])
'-'.join('abc')
'{} {}'.format('a', 1)
'{0}{1}{0}'.format('a', 'b')
'{a}'.format(a=1)
'{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c')
'{:.2f}'.format(3.14159)
'{:05d}'.format(42)
'{:,}'.format(1234567)
'{!r}'.format('a')
'{{}}'.format()
v.tree.get('b')
v.tree.get('nope')
v.tree.get('nope', 'd')
v.tree.keys()|list
v.tree.values()|list
v.tree.items()|list
v.tree.copy() == v.tree
v.list.index(1)
v.list.count(1)
v.list.copy()
v.list.append(4)
v.tree.pop('b')
v.tree.update({'c': 1})
dict(a=1, b=2)
dict(a=1)['a']
range(5)|list
range(1, 10, 3)|list
range(3, 0, -1)|list
namespace(a=1).a
lipsum(1)
v.people|groupby('name')|length
v.people[:2]|groupby('age')|list
v.people[:2]|sort(attribute='age')|map(attribute='name')|list
v.people|sum(attribute='age', start=0)
'a b c'|wordwrap(3)
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(9, false, '…')
'foo bar baz qux'|truncate(9, leeway=0)
1000|filesizeformat
123456789|filesizeformat
123456789|filesizeformat(true)
1|filesizeformat
{'class': 'a', 'id': none}|xmlattr
'<b>x</b> y'|striptags
'a'|safe
'a'|forceescape
v.list|random is number
v.text|pprint
'a'|attr('upper') is callable
v.tree|attr('b')
1|bool
true and 1
(1 if false) is undefined
'a' 'b'
'a\\nb'
"\u00e9"
'tab\there'
1_000
0x1f
1e-5
-1
+1
--1
1.0
100000000000000000000
1e100
1.0e15
123456789.125
v.whole|int
true|int
true|string
none|string
v.small ~ ''
v.big ~ 'x'
[v.small]|join
v.mixed ~ ''
true|lower
1|upper
none|length
v.seven|length
v.nothing.x
v.text + 1
1 + 'a'
none + 1
v.list + 'a'
v.tree + v.tree
'a' - 'b'
1 / 0
1 // 0
1 % 0
'a' < 1
v.missing + 1
v.text()
v.nothing()
v.list|nosuchfilter
v.list is nosuchtest
nosuchfunction()
raise_exception('no')
v['__class__']
v.text.__class__
'a'.encode('utf-8')
'a'.translate({})
'a' < 1
1 < 'a'
'a' <= none
none > 1
none < none
[1] < 2
[1, 2] < [1, 3]
[1, 2] < [1, 'a']
[1, 2] < [1, 2, 'a']
(1, 2) < [1, 3]
(1, 2) <= (1, 2)
{} < {}
true < 2
true >= 1.0
1 < 2.5
'a' < 'b' < 'c'
1 < 'a' < 2
2 < 1 < 'a'
1 == 1.0 < 2
v.missing < 1
v.seven is lt 'a'
v.seven is gt 7.5
v.mixed|sort
v.words|sort
v.words|sort(case_sensitive=true)
v.mixed|max
[1, none]|min
[none, none]|sort
[none]|sort
[true, 0, 0.5]|sort
[[2], [1]]|sort
v.people|sort(attribute='name')|length
v.people|sort(attribute='age')|length
v.people|max(attribute='name')
{'a': 1, 'b': 'x'}|dictsort(by='value')
{'b': 1, 'a': 'x'}|dictsort
['a', 1]|groupby('x')|length
'a' + 1
1 + none
[1] + (2,)
(1,) + (2,)
'ab' * 2
2 * 'ab'
'ab' * -1
'ab' * true
[1, 2] * 2
(1,) * 3
'a' * 'b'
'a' * 1.5
true + true
7 % -3
-7 % 3
7.5 % 2
-7.5 % 2
7 % 0
'a' % 1
v.text % 1
'%s-%s' % ('a', [1])
v.list[1:]
v.list[::-1]
[][::-1]
v.list[5:1:-1]
v.list[-2:]
v.text[4:7]
v.text[::-2]
v.list[::0]
v.nothing[1:]
v.tree[1:]
v.missing[1:]
(1, 2, 3)[1:]
(1, 2, 3)[::2]
0|filesizeformat
999|filesizeformat
1023|filesizeformat(binary=true)
1024|filesizeformat(binary=true)
1.0|filesizeformat
0.7|filesizeformat
-5|filesizeformat
'1500'|filesizeformat
'x'|filesizeformat
1e30|filesizeformat
999999|filesizeformat
{}|xmlattr
{'a': '<"x">', 'b': 3, 'c': v.missing}|xmlattr
{'a': 1}|xmlattr(false)
{'a b': 1}|xmlattr
'x'|xmlattr
'a <!-- b <c> --> d'|striptags
'<p>a  b\n<br/>c</p>'|striptags
'a < b > c < d'|striptags
'&lt;b&gt; &amp; &#65;&#x42; &quot;'|striptags
'a & b'|striptags
3|striptags
'aaa bbb ccc'|wordwrap(7)
'aaaaaaaaaa bb'|wordwrap(4)
'aaaaaaaaaa bb'|wordwrap(4, false)
'  aaa   bbb  ccc '|wordwrap(4)
'aaa bbb\n\nccc ddd'|wordwrap(4, wrapstring='|')
'aaa bbb'|wordwrap(0)
''|wordwrap(5)
'aa bbbb cccccccc d'|wordwrap(4)
'abcd efgh'|wordwrap(4)
v.text|wordwrap(9)
'well-known state-of-the-art'|wordwrap(8, break_on_hyphens=false)
""".strip().splitlines()

# Whole templates.
TEMPLATES = [
    "{% for x in v.list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }},{% endfor %}",
    "{% for x in v.list %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in v.list %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in v.list %}{{ loop.changed(x > 1) }}{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}",
    "{% for x in v.list if x > 1 %}{{ x }}{{ loop.index }}{% endfor %}",
    "{% for x in v.list %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in v.list %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for k, w in v.tree.items() %}{{ k }}={{ w }};{% endfor %}",
    "{% for k in v.tree %}{{ k }}{% endfor %}",
    "{% for c in 'abc' %}{{ c }}.{% endfor %}",
    "{% for x in v.missing %}x{% endfor %}|",
    "{% for x in v.seven %}x{% endfor %}",
    "{% for x in [1, 2] %}\n  {% if x == 2 %}\n    {{ x }}{{ loop.last }}\n  {% endif %}\n{% endfor %}",
    "a\n  {%- if true %} b {% endif -%}\n  c",
    "a\n  {%+ if true %} b{% endif +%}\n  c",
    "  {{ 1 }}  \n  {{- 2 -}}  \n3\n",
    "{# comment #}\nx{#- y -#}  z",
    "{% raw %}{{ 'a' % 1 }}{% endraw %}{{ '%d' % 1 }}",
    "{% set ns = namespace(n=0, found=false) %}{% for x in v.list %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "{% set x %}block {{ 1 }}{% endset %}[{{ x }}]",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x = 1 %}{% for y in [1] %}{% set x = 2 %}{% endfor %}{{ x }}",
    "{% macro m(a, b='d') %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(a=3) }}",
    "{% macro m(a) %}[{{ a }}{{ caller() }}]{% endmacro %}{% call m(1) %}x{% endcall %}",
    "{% filter upper %}abc{{ 1 }}{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "{% if v.missing is not defined %}a{% elif true %}b{% else %}c{% endif %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() ~ c.next() ~ c.next() }}{{ c.current }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{% set _ = c.reset() %}{{ c.next() }}",
    "{% set j = joiner(',') %}{{ j() ~ 'x' ~ j() ~ 'y' }}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{{ messages[0]['role'] }}{{ messages[-1].content }}{{ messages|length }}",
    "{% for m in messages[1:] %}{{ m.role }}{% endfor %}",
    "{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% endif %}{{ loop_messages|length }}",
    "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|map('trim')|join('/') }}",
    "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}",
    "{% if tools %}t{% endif %}{% if tools is none %}n{% endif %}{% if tools is defined %}d{% endif %}",
    "{% if '</think>' in messages[2].content %}{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}{% endif %}",
    "{% for x in [1, 2] recursive %}{{ x }}{% endfor %}",
    "{% for t in [[1, [2]], 3] recursive %}{{ loop(t) if t is not number else t }}{% endfor %}",
    "{{ '%s' % messages[1].content|trim }}|{{ 5 % 3 }}|{{ '%' }}|{{ '%d' % (5 % 3) }}",
    "{% if 'a' % () == 'a' %}x{% endif %}",
    "{{ {'a': '%s' % 1}['a'] }}",
    "x{{ '}}' }}y{{ '%}' }}z",
    "{{ 'unclosed }}",
    "{% if %}",
    "{% endfor %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% do v.list.append(1) %}",
    "{% for x in v.list %}{% if x < 'a' %}b{% endif %}{% endfor %}",
    "{% set a = [1, 2] %}{% set b, (c, d) = 1, (2, 3) %}{{ a[b] }}{{ c }}{{ d }}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% set x | upper %}a{{ 'b' }}{% endset %}{{ x }}",
    "{% filter upper | replace('A', 'x') %}abc{% endfilter %}",
    "{% macro m(a, b='d', c=[1]) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1, c=2) }}{{ m(*[1, 2], **{'c': 3}) }}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ caller('x', y=2) }}{% endmacro %}{% call(a, y=1) m() %}{{ a }}{{ y }}{% endcall %}",
    "{% if not v.yes and v.seven > 3 or v.no %}a{% else %}b{% endif %}{{ -v.seven|abs }}{{ 2 - -3 }}{{ -(2 + 3) * 2 }}",
    "{{ 1 if v.no else 2 if v.nothing else 3 }}{{ (1 if v.no) is undefined }}{{ not 1 == 2 }}",
    "{{ 'a' if v.seven in [7] else 'b' }}{{ 7 not in [7] }}{{ 'x' not in 'xyz' }}{{ 'a' in v.tree }}",
    "{{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content[1:5] }}{{ (1, 2)[1] }}{{ [3, 4][0] }}{{ {'a': 5}['a'] }}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{% else %}none{% endfor %}",
    "line {{ 1 }}\n  {#- gone -#}\n{%- raw -%}\n  {{ kept }} {%- endraw %}\n{{ 2 }}\n\n",
    "{% block a %}x{{ 1 }}{% endblock %}",
    "{{ 'a' ~ 1 + 2 ~ 'b' }}{{ 1 ~ 2 * 3 }}{{ 10 - 3 ~ 4 }}{{ 2 ** 3 ** 1 }}{{ 7 // 2 * 2 }}",
    "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.role[0] %}{% endfor %}{{ ns.s }}",
    "{% set q = '\"' %}{{ q ~ \"'\" }}{{ 'back\\\\slash' }}{{ '\\t|\\u00e9|\\x41' }}",
]

# The constructs of well-known chat templates, written anew.
CHATS = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama 3.1": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}\n{{- 'Today Date: ' + date_string + '\n\n' }}\n{{- system_message }}\n{{- '<|eot_id|>' }}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}\n    {%- elif 'tool_calls' in message %}\n        {%- if not message.tool_calls|length == 1 %}\n            {{- raise_exception('one call') }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n",
    "qwen 2.5": "{%- if tools %}\n    {{- '# Tools' }}\n    {%- for tool in tools %}\n        {{- '\n' }}\n        {{- tool | tojson }}\n    {%- endfor %}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) or (message.role == 'assistant' and not message.tool_calls) %}\n        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\n    {%- endif %}\n{%- endfor %}",
    "qwen 3": "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- set content = message.content %}\n    {%- set reasoning = '' %}\n    {%- if message.role == 'assistant' %}\n        {%- if message.reasoning_content is string %}\n            {%- set reasoning = message.reasoning_content %}\n        {%- elif '</think>' in content %}\n            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}\n            {{- reasoning }}\n        {%- endif %}\n    {%- endif %}\n    {{- message.role ~ ':' ~ content ~ '\n' }}\n{%- endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages[1:] %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
    "gemma turns": "{{ bos_token }}{% for message in messages[1:] %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "phi": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "deepseek": "{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<User>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<Assistant>' + content + '<end>'}}{%- endif %}{%- endfor %}",
    "bitnet": "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}",
    "smollm": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}",
    "granite": "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- endif %}{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{{- '<|end_of_role|>' }}{%- endif %}{%- endfor %}",
    "falcon": "{{bos_token}}{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ message.role|title ~ ': ' ~ message.content.strip() }}{% endfor %}",
}


def environment():
    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


def main():
    messages = [dict(MESSAGES[0], v=VALUES), *MESSAGES[1:]]
    jinja = environment()
    sources = ["{% set v = messages[0].v %}{{ " + expression + " }}" for expression in EXPRESSIONS]
    sources += ["{% set v = messages[0].v %}" + template for template in TEMPLATES] + list(CHATS.values())
    entries = []
    for source in sources:
        if "lipsum" in source or "random" in source:
            continue
        try:
            text = jinja.from_string(source).render(
                messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", tools=None, documents=None
            )
            entries.append({"template": source, "text": text})
        except Exception as error:
            entries.append({"template": source, "error": f"{type(error).__name__}: {error}"})
    path = Path(__file__).parent / "jinja" / "templates.json"
    file = {"jinja2": jinja2.__version__, "messages": messages, "entries": entries}
    path.write_text(json.dumps(file, indent=1, ensure_ascii=True) + "\n")
    print(len(entries), sum("error" in e for e in entries))


main()
