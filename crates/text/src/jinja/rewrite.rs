//! A template as a program for minijinja, with Jinja2's meaning: parsed by minijinja's own parser and written
//! anew with calls of filters in the place of what minijinja has no hook for.
//!
//! * Operators whose values differ from Python's, or grow with their operands, call [`super::operators`].
//! * Values that a filter, a call or a literal makes are counted ([`super::budget`]).
//! * Text between tags is written as the value of a tag, so that it is counted too.
//!
//! The program has each expression in the line where its author has it, for the lines of errors.

mod expressions;

use minijinja::machinery::ast::{Expr, Macro, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

pub(super) use expressions::{
    ADD, COMPARE, CONCAT, ITEMS, MADE, METHOD, MODULO, MUL, PARTS, PRINTED, SLICE, STORED, USED,
};

/// Operators in one tag, and `elif` in one template: the parser and the compiler recurse into their operands.
const MOST_OPERATORS: usize = 1000;

/// Writes a template's program.
///
/// # Errors
/// If it is no Jinja, or needs other templates.
pub(crate) fn rewrite(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    check_length(source, syntax.clone())?;
    let tree = parse(source, "chat_template", syntax)?;
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), line: 1 };
    match &tree {
        Stmt::Template(template) => writer.body(&template.children)?,
        other => writer.statement(other)?,
    }
    Ok(writer.out)
}

/// Refuses what would take the stack before anything recurses into it.
fn check_length(source: &str, syntax: SyntaxConfig) -> Result<(), Error> {
    let (mut operators, mut branches) = (0, 0);
    for token in tokenize(source, false, syntax) {
        // A token that is none is left to the parser, which names its line.
        let Ok((token, span)) = token else { return Ok(()) };
        match token {
            Token::BlockStart | Token::VariableStart => operators = 0,
            Token::Ident("elif") => branches += 1,
            Token::Ident("and" | "or" | "not" | "if" | "is" | "in" | "else") => operators += 1,
            Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::FloorDiv | Token::Pow => {
                operators += 1;
            }
            Token::Eq | Token::Ne | Token::Lt | Token::Lte | Token::Gt | Token::Gte => operators += 1,
            Token::Mod | Token::Dot | Token::Tilde | Token::Pipe => operators += 1,
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => operators += 1,
            _ => {}
        }
        if operators > MOST_OPERATORS || branches > MOST_OPERATORS {
            let problem = format!(
                "line {}: more than {MOST_OPERATORS} operators in one tag or branches in one template",
                span.start_line
            );
            return Err(Error::new(ErrorKind::SyntaxError, problem));
        }
    }
    Ok(())
}

struct Writer {
    out: String,
    line: usize,
}

impl Writer {
    /// Goes to a line, within a tag.
    fn at(&mut self, line: u16) {
        while self.line < usize::from(line) {
            self.out.push('\n');
            self.line += 1;
        }
    }

    fn body(&mut self, statements: &[Stmt<'_>]) -> Result<(), Error> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    /// A tag without an expression.
    fn tag(&mut self, text: &str) {
        self.out += "{% ";
        self.out += text;
        self.out += " %}";
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), Error> {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitExpr(emit) => {
                self.out += "{{ ";
                self.expr(&emit.expr)?;
                self.out += " }}";
            }
            Stmt::EmitRaw(raw) => {
                self.out += "{{ ";
                self.string(raw.raw);
                self.out += " }}";
            }
            Stmt::ForLoop(each) => {
                self.out += "{% for ";
                self.target(&each.target)?;
                self.out += " in ";
                self.counted(&each.iter, ITEMS)?;
                if let Some(filter) = &each.filter_expr {
                    self.out += " if ";
                    self.operand(filter)?;
                }
                self.out += if each.recursive { " recursive %}" } else { " %}" };
                self.body(&each.body)?;
                if !each.else_body.is_empty() {
                    self.tag("else");
                    self.body(&each.else_body)?;
                }
                self.tag("endfor");
            }
            Stmt::IfCond(cond) => {
                self.out += "{% if ";
                self.operand(&cond.expr)?;
                self.out += " %}";
                self.body(&cond.true_body)?;
                if !cond.false_body.is_empty() {
                    self.tag("else");
                    self.body(&cond.false_body)?;
                }
                self.tag("endif");
            }
            Stmt::WithBlock(with) => {
                self.out += "{% with ";
                for (i, (target, value)) in with.assignments.iter().enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    match target {
                        Expr::List(_) => self.group(target)?,
                        _ => self.target(target)?,
                    }
                    self.out += " = ";
                    self.expr(value)?;
                }
                self.out += " %}";
                self.body(&with.body)?;
                self.tag("endwith");
            }
            Stmt::Set(set) => {
                self.out += "{% set ";
                self.target(&set.target)?;
                self.out += " = ";
                match has_attribute(&set.target) {
                    true => self.counted(&set.expr, STORED)?,
                    false => self.expr(&set.expr)?,
                }
                self.out += " %}";
            }
            Stmt::SetBlock(set) => {
                self.out += "{% set ";
                self.target(&set.target)?;
                if let Some(filter) = &set.filter {
                    self.out += " | ";
                    self.expr(filter)?;
                }
                self.out += " %}";
                self.body(&set.body)?;
                self.tag("endset");
            }
            Stmt::FilterBlock(block) => {
                self.out += "{% filter ";
                self.expr(&block.filter)?;
                self.out += " %}";
                self.body(&block.body)?;
                self.tag("endfilter");
            }
            Stmt::Block(block) => {
                self.tag(&format!("block {}", block.name));
                self.body(&block.body)?;
                self.tag("endblock");
            }
            Stmt::Macro(declared) => {
                self.out += &format!("{{% macro {}", declared.name);
                self.parameters(declared)?;
                self.out += " %}";
                self.body(&declared.body)?;
                self.tag("endmacro");
            }
            Stmt::CallBlock(block) => {
                self.out += "{% call";
                self.parameters(&block.macro_decl)?;
                self.out.push(' ');
                self.call(&block.call.expr, &block.call.args)?;
                self.out += " %}";
                self.body(&block.macro_decl.body)?;
                self.tag("endcall");
            }
            Stmt::Continue(_) => self.tag("continue"),
            Stmt::Break(_) => self.tag("break"),
            Stmt::AutoEscape(tag) => return Err(refused("autoescape", tag.span().start_line)),
            Stmt::Do(tag) => return Err(refused("do", tag.span().start_line)),
            Stmt::Import(tag) => return Err(refused("import", tag.span().start_line)),
            Stmt::FromImport(tag) => return Err(refused("from", tag.span().start_line)),
            Stmt::Extends(tag) => return Err(refused("extends", tag.span().start_line)),
            Stmt::Include(tag) => return Err(refused("include", tag.span().start_line)),
        }
        Ok(())
    }

    /// The parameters of a macro or of a call's block.
    fn parameters(&mut self, declared: &Macro<'_>) -> Result<(), Error> {
        self.out.push('(');
        let without = declared.args.len() - declared.defaults.len();
        for (i, parameter) in declared.args.iter().enumerate() {
            self.out += if i > 0 { ", " } else { "" };
            self.target(parameter)?;
            if let Some(default) = i.checked_sub(without).map(|i| &declared.defaults[i]) {
                self.out += " = ";
                self.expr(default)?;
            }
        }
        self.out.push(')');
        Ok(())
    }

    /// What is assigned to: a name, an attribute of a namespace, or several.
    fn target(&mut self, target: &Expr<'_>) -> Result<(), Error> {
        match target {
            Expr::List(list) => {
                for (i, item) in list.items.iter().enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    match item {
                        Expr::List(_) => self.group(item)?,
                        _ => self.target(item)?,
                    }
                }
                if list.items.len() == 1 {
                    self.out.push(',');
                }
            }
            Expr::GetAttr(attr) => {
                self.target(&attr.expr)?;
                self.out.push('.');
                self.out += attr.name;
            }
            Expr::Var(var) => {
                self.at(var.span().start_line);
                self.out += var.id;
            }
            other => self.expr(other)?,
        }
        Ok(())
    }

    fn group(&mut self, target: &Expr<'_>) -> Result<(), Error> {
        self.out.push('(');
        self.target(target)?;
        self.out.push(')');
        Ok(())
    }

    /// An expression with a filter that counts it.
    fn counted(&mut self, expr: &Expr<'_>, filter: &str) -> Result<(), Error> {
        self.operand(expr)?;
        self.out.push('|');
        self.out += filter;
        Ok(())
    }
}

/// Whether something is stored in a namespace.
fn has_attribute(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(_) => true,
        Expr::List(list) => list.items.iter().any(has_attribute),
        _ => false,
    }
}

/// A statement that Jinja2 as transformers sets it up does not have, or that needs other templates.
fn refused(what: &str, line: u16) -> Error {
    Error::new(
        ErrorKind::SyntaxError,
        format!("line {line}: {{% {what} %}} is not supported in chat templates"),
    )
}
