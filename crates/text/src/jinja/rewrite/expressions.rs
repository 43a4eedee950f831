//! Expressions, written with calls of filters.

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::Writer;
use crate::jinja::methods::{DICT, LIST, STR};

/// Names of the filters that a program calls.
pub(in crate::jinja) const ADD: &str = "__add__";
pub(in crate::jinja) const MUL: &str = "__mul__";
pub(in crate::jinja) const MODULO: &str = "__mod__";
pub(in crate::jinja) const CONCAT: &str = "__concat__";
pub(in crate::jinja) const COMPARE: &str = "__compare__";
pub(in crate::jinja) const SLICE: &str = "__slice__";
/// `value.method is …`.
pub(in crate::jinja) const METHOD: &str = "__method__";
/// Counts a value that was made.
pub(in crate::jinja) const MADE: &str = "__made__";
/// Counts an operand that is read from end to end.
pub(in crate::jinja) const USED: &str = "__used__";
/// Counts an operand that becomes a text.
pub(in crate::jinja) const PRINTED: &str = "__printed__";
/// Counts an operand of which every item becomes a value.
pub(in crate::jinja) const ITEMS: &str = "__items__";
/// Counts an operand of which every part is compared.
pub(in crate::jinja) const PARTS: &str = "__parts__";
/// What is stored in a namespace.
pub(in crate::jinja) const STORED: &str = "__stored__";

/// Filters that make a value of each item of a string.
const ITEM_FILTERS: [&str; 16] = [
    "list",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "batch",
    "slice",
    "sort",
    "unique",
    "groupby",
    "join",
    "sum",
    "min",
    "max",
    "reverse",
];

/// Filters that print nothing of what is in a list or dict, or have a bound of their own.
const LIST_FILTERS: [&str; 17] = [
    "length",
    "count",
    "first",
    "last",
    "items",
    "default",
    "d",
    "attr",
    "dictsort",
    "random",
    "tojson",
    "string",
    "replace",
    "indent",
    "urlencode",
    "xmlattr",
    "truncate",
];

impl Writer {
    /// An expression, where any may stand.
    pub(super) fn expr(&mut self, expr: &Expr<'_>) -> Result<(), Error> {
        self.at(expr.span().start_line);
        match expr {
            Expr::Var(var) => self.out += var.id,
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::Slice(slice) => {
                self.operand(&slice.expr)?;
                self.out += &format!("|{SLICE}(");
                for (i, place) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    match place {
                        Some(place) => self.expr(place)?,
                        None => self.out += "none",
                    }
                }
                self.out.push(')');
            }
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => {
                    self.out += "not ";
                    self.operand(&op.expr)?;
                }
                UnaryOpKind::Neg => {
                    self.out.push('-');
                    self.primary(&op.expr)?;
                }
            },
            Expr::BinOp(op) => self.operation(op.op, &op.left, &op.right)?,
            Expr::Compare(chain) => {
                self.operand(&chain.expr)?;
                self.out += &format!("|{COMPARE}(");
                for (i, op) in chain.ops.iter().enumerate() {
                    self.out += if i > 0 { ", '" } else { "'" };
                    self.out += comparison(op.op);
                    self.out += "', ";
                    self.expr(&op.expr)?;
                }
                self.out.push(')');
            }
            Expr::IfExpr(cond) => {
                self.operand(&cond.true_expr)?;
                self.out += " if ";
                self.operand(&cond.test_expr)?;
                if let Some(other) = &cond.false_expr {
                    self.out += " else ";
                    self.operand(other)?;
                }
            }
            Expr::Filter(filter) => {
                if let Some(value) = &filter.expr {
                    let count = match filter.name {
                        name if ITEM_FILTERS.contains(&name) => ITEMS,
                        name if LIST_FILTERS.contains(&name) => USED,
                        _ => PRINTED,
                    };
                    self.counted(value, count)?;
                    self.out.push('|');
                }
                self.out += filter.name;
                self.arguments(&filter.args)?;
                self.out += &format!("|{MADE}");
            }
            Expr::Test(test) => {
                match &test.expr {
                    Expr::GetAttr(attr)
                        if DICT.contains(&attr.name)
                            || STR.contains(&attr.name)
                            || LIST.contains(&attr.name) =>
                    {
                        self.operand(&attr.expr)?;
                        self.out += &format!("|{METHOD}('{}')", attr.name);
                    }
                    other => self.counted(other, USED)?,
                }
                self.out += " is ";
                self.out += test.name;
                self.arguments(&test.args)?;
            }
            Expr::GetAttr(attr) => {
                self.primary(&attr.expr)?;
                self.out.push('.');
                self.out += attr.name;
            }
            Expr::GetItem(item) => {
                // A character of a string is found by counting.
                match &item.subscript_expr {
                    Expr::Const(key) if key.value.kind() == ValueKind::String => self.primary(&item.expr)?,
                    _ => {
                        self.out.push('(');
                        self.counted(&item.expr, USED)?;
                        self.out.push(')');
                    }
                }
                self.out.push('[');
                self.expr(&item.subscript_expr)?;
                self.out.push(']');
            }
            Expr::Call(call) => {
                self.call(&call.expr, &call.args)?;
                self.out += &format!("|{MADE}");
            }
            Expr::List(list) => {
                self.items('[', &list.items, ']')?;
                self.out += &format!("|{MADE}");
            }
            Expr::Tuple(tuple) => {
                self.items('(', &tuple.items, ')')?;
                self.out += &format!("|{MADE}");
            }
            Expr::Map(map) => {
                self.out.push('{');
                for (i, (key, value)) in map.keys.iter().zip(&map.values).enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    self.expr(key)?;
                    self.out += ": ";
                    self.expr(value)?;
                }
                // Two braces would end the tag.
                self.out += &format!(" }} |{MADE}");
            }
        }
        Ok(())
    }

    fn operation(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Result<(), Error> {
        let (sign, counted) = match op {
            BinOpKind::Add => return self.call_filter(ADD, None, left, right),
            BinOpKind::Mul => return self.call_filter(MUL, None, left, right),
            BinOpKind::Rem => return self.call_filter(MODULO, None, left, right),
            BinOpKind::Concat => return self.call_filter(CONCAT, None, left, right),
            BinOpKind::Lt => return self.call_filter(COMPARE, Some("<"), left, right),
            BinOpKind::Lte => return self.call_filter(COMPARE, Some("<="), left, right),
            BinOpKind::Gt => return self.call_filter(COMPARE, Some(">"), left, right),
            BinOpKind::Gte => return self.call_filter(COMPARE, Some(">="), left, right),
            BinOpKind::Eq => ("==", true),
            BinOpKind::Ne => ("!=", true),
            BinOpKind::In => ("in", true),
            BinOpKind::ScAnd => ("and", false),
            BinOpKind::ScOr => ("or", false),
            BinOpKind::Sub => ("-", false),
            BinOpKind::Div => ("/", false),
            BinOpKind::FloorDiv => ("//", false),
            BinOpKind::Pow => ("**", false),
        };
        self.side(counted, left)?;
        self.out += &format!(" {sign} ");
        self.side(counted, right)
    }

    fn side(&mut self, counted: bool, expr: &Expr<'_>) -> Result<(), Error> {
        match counted && !matches!(expr, Expr::Const(_)) {
            true => self.counted(expr, PARTS),
            false => self.operand(expr),
        }
    }

    /// A filter with the right side of an operator as its argument. Sums and concatenations of several take
    /// all of them at once, so that what is added up to is not copied again and again.
    fn call_filter(
        &mut self,
        name: &str,
        sign: Option<&str>,
        left: &Expr<'_>,
        right: &Expr<'_>,
    ) -> Result<(), Error> {
        let (mut first, mut rest) = (left, vec![right]);
        while let Expr::BinOp(op) = first {
            if !matches!((name, op.op), (ADD, BinOpKind::Add) | (CONCAT, BinOpKind::Concat)) {
                break;
            }
            rest.push(&op.right);
            first = &op.left;
        }
        self.operand(first)?;
        self.out += &format!("|{name}(");
        if let Some(sign) = sign {
            self.out += &format!("'{sign}', ");
        }
        for (i, operand) in rest.iter().rev().enumerate() {
            self.out += if i > 0 { ", " } else { "" };
            self.expr(operand)?;
        }
        self.out.push(')');
        Ok(())
    }

    /// A call of a function, a macro or a method.
    pub(super) fn call(&mut self, callee: &Expr<'_>, args: &[CallArg<'_>]) -> Result<(), Error> {
        match callee {
            Expr::GetAttr(attr) if !matches!(attr.expr, Expr::Var(_)) => {
                self.out.push('(');
                self.counted(&attr.expr, USED)?;
                self.out += &format!(").{}", attr.name);
            }
            other => self.primary(other)?,
        }
        if args.is_empty() {
            self.out += "()";
        }
        self.arguments(args)
    }

    pub(super) fn arguments(&mut self, args: &[CallArg<'_>]) -> Result<(), Error> {
        if args.is_empty() {
            return Ok(());
        }
        self.out.push('(');
        for (i, arg) in args.iter().enumerate() {
            self.out += if i > 0 { ", " } else { "" };
            let (before, value) = match arg {
                CallArg::Pos(value) => (String::new(), value),
                CallArg::Kwarg(name, value) => (format!("{name}="), value),
                CallArg::PosSplat(value) => ("*".to_string(), value),
                CallArg::KwargSplat(value) => ("**".to_string(), value),
            };
            self.out += &before;
            self.expr(value)?;
        }
        self.out.push(')');
        Ok(())
    }

    fn items(&mut self, open: char, items: &[Expr<'_>], close: char) -> Result<(), Error> {
        self.out.push(open);
        for (i, item) in items.iter().enumerate() {
            self.out += if i > 0 { ", " } else { "" };
            self.expr(item)?;
        }
        if close == ')' && items.len() == 1 {
            self.out.push(',');
        }
        self.out.push(close);
        Ok(())
    }

    /// An expression that an operator, a filter or a test may follow.
    pub(super) fn operand(&mut self, expr: &Expr<'_>) -> Result<(), Error> {
        let bare = match expr {
            Expr::UnaryOp(_) | Expr::IfExpr(_) | Expr::Test(_) => false,
            Expr::BinOp(op) => matches!(
                op.op,
                BinOpKind::Add
                    | BinOpKind::Mul
                    | BinOpKind::Rem
                    | BinOpKind::Concat
                    | BinOpKind::Lt
                    | BinOpKind::Lte
                    | BinOpKind::Gt
                    | BinOpKind::Gte
            ),
            _ => true,
        };
        self.in_brackets(!bare, expr)
    }

    /// An expression that `.name`, `[…]` or `(…)` may follow.
    pub(super) fn primary(&mut self, expr: &Expr<'_>) -> Result<(), Error> {
        let bare = match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => true,
            Expr::Const(constant) => constant.value.kind() == ValueKind::String,
            _ => false,
        };
        self.in_brackets(!bare, expr)
    }

    fn in_brackets(&mut self, brackets: bool, expr: &Expr<'_>) -> Result<(), Error> {
        if brackets {
            self.out.push('(');
        }
        self.expr(expr)?;
        if brackets {
            self.out.push(')');
        }
        Ok(())
    }

    pub(super) fn constant(&mut self, value: &Value) {
        match value.as_str() {
            Some(text) => self.string(text),
            None => match value.kind() {
                ValueKind::None => self.out += "none",
                ValueKind::Number if !value.is_integer() => {
                    self.out += &format!("{:?}", f64::try_from(value.clone()).unwrap_or_default());
                }
                _ => self.out += &value.to_string(),
            },
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out += "\\\"",
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}
