//! Filters and globals as jinja2 defines them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::budget::{holds_namespace, spend};
use super::{arguments, invalid, operators};
use crate::python::{splitlines, value_text};

/// As markupsafe escapes.
pub(super) fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

pub(super) fn center(text: &str, width: usize, fill: char) -> String {
    let Some(missing) = width.min(1 << 16).checked_sub(text.chars().count()) else { return text.to_string() };
    let left = missing / 2 + (missing & width & 1);
    let pad = |n: usize| fill.to_string().repeat(n);
    format!("{}{text}{}", pad(left), pad(missing - left))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn indent(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let [width, first, blank] = arguments("indent", &args, &kwargs, ["width", "first", "blank"])?;
    let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let by = match &width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(text), _) => text.to_string(),
            (None, Some(width)) if width <= 1 << 12 => " ".repeat(width),
            _ => {
                return Err(invalid(format!("indent: width {width}: expected a number to 4096 or a string")));
            }
        },
    };
    let text = format!("{}\n", value_text(value));
    spend(state, splitlines(&text, false).len().saturating_mul(by.len()))?;
    let mut out = String::new();
    for (i, line) in splitlines(&text, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out += &by;
        }
        out += line;
    }
    Ok(out)
}

/// `urllib.parse.quote`; of a dict or of pairs, a query.
pub(super) fn urlencode(value: &Value) -> Result<String, Error> {
    let quote = |value: &Value, query: bool| {
        let mut out = String::new();
        for byte in value_text(value).bytes() {
            match byte {
                b' ' if query => out.push('+'),
                b'/' if !query => out.push('/'),
                b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
                _ => out += &format!("%{byte:02X}"),
            }
        }
        out
    };
    let pair = |key: &Value, value: &Value| format!("{}={}", quote(key, true), quote(value, true));
    match value.kind() {
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            let pairs = keys.iter().map(|key| Ok(pair(key, &value.get_item(key)?)));
            Ok(pairs.collect::<Result<Vec<_>, Error>>()?.join("&"))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let pairs = value
                .try_iter()?
                .map(|item| Ok(pair(&item.get_item_by_index(0)?, &item.get_item_by_index(1)?)));
            Ok(pairs.collect::<Result<Vec<_>, Error>>()?.join("&"))
        }
        _ => Ok(quote(value, false)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let [separator, attribute] = arguments("join", &args, &kwargs, ["d", "attribute"])?;
    if value.is_undefined() {
        return Ok(String::new());
    }
    let separator = separator.as_ref().map(value_text).unwrap_or_default();
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        let part = match &attribute {
            None => value_text(&item),
            Some(name) => value_text(&part(&item, name)?),
        };
        spend(state, part.len() + separator.len())?;
        parts.push(part);
    }
    Ok(parts.join(&separator))
}

/// What `attribute=` names: an index, or names with dots between them.
fn part(item: &Value, name: &Value) -> Result<Value, Error> {
    match name.as_str() {
        Some(path) => path.split('.').try_fold(item.clone(), |value, key| match key.parse::<usize>() {
            Ok(index) => value.get_item_by_index(index),
            Err(_) => value.get_attr(key),
        }),
        None => item.get_item(name),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn sum(
    state: &mut State<'_, '_>,
    value: Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let [attribute, start] = arguments("sum", &args, &kwargs, ["attribute", "start"])?;
    let mut items = Vec::new();
    for item in value.try_iter()? {
        let item = attribute.as_ref().map_or_else(|| Ok(item.clone()), |name| part(&item, name))?;
        if item.is_undefined() {
            return Err(invalid("sum: an item is undefined".to_string()));
        }
        items.push(item);
    }
    let kwargs = Kwargs::from_iter(start.map(|start| ("start", start)));
    minijinja::filters::sum(state, Value::from(items), None, None, kwargs)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn default(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let [other, boolean] = arguments("default", &args, &kwargs, ["default_value", "boolean"])?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    let absent = value.is_undefined() || falsy;
    Ok(if absent {
        args.first().cloned().or(other).unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn replace(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let [old, new, count] = arguments("replace", &args, &kwargs, ["old", "new", "count"])?;
    let (Some(old), Some(new)) = (old, new) else {
        return Err(invalid("replace: expected what is replaced, and by what".to_string()));
    };
    let (text, old, new) = (value_text(value), value_text(&old), value_text(&new));
    let count = count.and_then(|count| count.as_i64()).and_then(|count| usize::try_from(count).ok());
    spend_replaced(state, &text, &old, &new)?;
    Ok(count.map_or_else(|| text.replace(&old, &new), |count| text.replacen(&old, &new, count)))
}

/// Counts a text in which every `old` becomes `new`.
pub(super) fn spend_replaced(
    state: &mut State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    spend(state, text.matches(old).count().saturating_mul(new.len()).saturating_add(text.len()))
}

pub(super) fn length(value: &Value) -> Result<usize, Error> {
    let nothing = value.is_undefined().then_some(0);
    let found = nothing.or_else(|| value.len());
    found.ok_or_else(|| invalid(format!("length: a value of type {} has none", value.kind())))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn truncate(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = arguments("truncate", &args, &kwargs, names)?;
    let number = |value: Option<Value>, usual: usize| match value {
        None => Ok(usual),
        Some(value) => value.as_usize().ok_or_else(|| invalid(format!("truncate: {value} is no length"))),
    };
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = end.as_ref().map_or_else(|| "...".to_string(), value_text);
    let room = length.checked_sub(end.chars().count());
    let room =
        room.ok_or_else(|| invalid(format!("truncate: expected length >= {}", end.chars().count())))?;
    let text = value_text(value);
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let short: String = text.chars().take(room).collect();
    let whole_words = !kill.is_some_and(|kill| kill.is_true());
    let short = if whole_words { short.rsplit_once(' ').map_or(&*short, |(words, _)| words) } else { &short };
    Ok(format!("{short}{end}"))
}

/// One group of `groupby`: a tuple of two, with names.
#[derive(Debug)]
pub(crate) struct Group([Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = match key.as_str() {
            Some("grouper") => 0,
            Some("list") => 1,
            Some(_) => return None,
            None => key.as_usize()?,
        };
        self.0.get(at).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// What the items of a list are sorted by: they themselves, or attributes.
fn keys(value: &Value, attribute: Option<&str>, default: Option<&Value>) -> Result<Vec<Vec<Value>>, Error> {
    let key = |item: &Value, name: &str| {
        let found = part(item, &Value::from(name.trim()))?;
        Ok(if found.is_undefined() { default.cloned().unwrap_or(found) } else { found })
    };
    let keys = |item: Value| match attribute {
        None => Ok(vec![item]),
        Some(names) => names.split(',').map(|name| key(&item, name)).collect(),
    };
    value.try_iter()?.map(keys).collect()
}

/// Refuses items that Python has no order of; minijinja has one of all values.
fn check_order(value: &Value, attribute: Option<&str>, default: Option<&Value>) -> Result<(), Error> {
    // What has no items is refused with the filter's own words.
    let Ok(keys) = keys(value, attribute, default) else { return Ok(()) };
    let columns = keys.first().map_or(0, Vec::len);
    (0..columns).try_for_each(|column| {
        operators::check_order(&keys.iter().map(|key| key[column].clone()).collect::<Vec<_>>())
    })
}

pub(super) fn sort(state: &State<'_, '_>, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    check_order(&value, kwargs.get("attribute")?, None)?;
    minijinja::filters::sort(state, value, kwargs)
}

pub(super) fn min(state: &State<'_, '_>, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    check_order(&value, kwargs.get("attribute")?, None)?;
    minijinja::filters::min(state, value, kwargs)
}

pub(super) fn max(state: &State<'_, '_>, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    check_order(&value, kwargs.get("attribute")?, None)?;
    minijinja::filters::max(state, value, kwargs)
}

pub(super) fn dictsort(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if kwargs.get::<Option<&str>>("by")? == Some("value") {
            keys = keys.iter().map(|key| value.get_item(key)).collect::<Result<_, _>>()?;
        }
        operators::check_order(&keys)?;
    }
    minijinja::filters::dictsort(value, kwargs)
}

pub(super) fn groupby(value: Value, attribute: Option<&str>, kwargs: Kwargs) -> Result<Value, Error> {
    let by = match attribute {
        None => kwargs.get("attribute")?,
        name => name,
    };
    let default = kwargs.get::<Option<Value>>("default")?;
    check_order(&value, by, default.as_ref())?;
    let groups = minijinja::filters::groupby(value, attribute, kwargs)?;
    let group = |group: Value| {
        Ok(Value::from_object(Group([group.get_item_by_index(0)?, group.get_item_by_index(1)?])))
    };
    groups.try_iter()?.map(group).collect::<Result<Vec<_>, Error>>().map(Value::from)
}

/// What `cycler` makes.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    next: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current"))
            .then(|| self.items[self.next.load(Relaxed) % self.items.len()].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let () = from_args(args)?;
        match name {
            "next" => Ok(self.items[self.next.fetch_add(1, Relaxed) % self.items.len()].clone()),
            "reset" => {
                self.next.store(0, Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

pub(super) fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.iter().any(holds_namespace) {
        return Err(invalid("cycler: a namespace inside a cycler is not supported".to_string()));
    }
    if items.is_empty() {
        return Err(invalid("cycler: at least one item has to be provided".to_string()));
    }
    Ok(Value::from_object(Cycler { items: items.0, next: AtomicUsize::new(0) }))
}
