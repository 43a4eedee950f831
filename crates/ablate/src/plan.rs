//! From an experiment to its runs: every recipe is resolved and frozen before the first run starts, so that editing files
//! changes nothing that is on its way.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tritforge_recipe::RecipeError;
use tritforge_report::Sink;
use tritforge_train::recipe::Recipe;
use tritforge_train::{Beginning, beginning, flops_per_step, prepare_in, run_identity, shared_steps};

use crate::experiment::{Arm, Experiment, Setting};
use crate::{AblateError, Pairing, Program};

/// All runs that an experiment may need.
#[derive(Debug)]
pub struct Plan {
    /// The arms, in the order of the file.
    pub arms: Vec<PlannedArm>,
    /// Seeds that are reported, as far as the budget goes.
    pub seeds: Vec<u64>,
    program: String,
    runs: PathBuf,
    sets: Vec<DataSet>,
    /// What runs begin with, for each seed.
    beginnings: Vec<Vec<Beginning>>,
    /// Steps of each rung; none without rungs.
    rungs: Vec<u64>,
}

/// An arm with every point among which one is chosen for it; only one where nothing is tuned. With rungs the first point
/// is that of the last rung, with all steps, and the others are those of the first rungs.
#[derive(Debug)]
pub struct PlannedArm {
    /// Its name.
    pub name: String,
    /// The points.
    pub points: Vec<Point>,
}

/// A recipe that is ready but for its seed.
#[derive(Debug)]
pub struct Point {
    /// What distinguishes it from the arm's other points.
    pub settings: Vec<Setting>,
    recipe: Recipe,
    set: usize,
    beginning: usize,
}

/// Data that runs share.
#[derive(Debug)]
struct DataSet {
    /// Its directory: tokenizer and tokens are in `data`.
    home: PathBuf,
    fingerprint: String,
    vocab_size: usize,
}

/// A run that can be started.
#[derive(Debug, Clone)]
pub struct FrozenRun {
    /// All that its result depends on, as 64 hexadecimal digits.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its data's directory.
    pub data_dir: PathBuf,
    /// Its recipe, with name and directory.
    pub recipe: Recipe,
}

impl Plan {
    /// Resolves all recipes, prepares their data, and finds out what runs begin with. `rungs` are the steps of each, or
    /// nothing. `sink` hears what goes on.
    ///
    /// # Errors
    /// If a recipe is wrong, or data or a base cannot be read.
    pub fn new(
        experiment: &Experiment,
        program: &Program,
        rungs: &[u64],
        sink: &dyn Sink,
    ) -> Result<Self, AblateError> {
        let mut resolved = Vec::new();
        for (arm, mut own) in experiment.arms.iter().zip(recipes(experiment)?) {
            for steps in rungs.split_last().map_or(&[][..], |(_, shorter)| shorter) {
                own.push(shorter(experiment, arm, &own[0].1, *steps)?);
            }
            for (i, (settings, recipe)) in own.into_iter().enumerate() {
                resolved.push((i == 0, arm.name.clone(), settings, recipe));
            }
        }
        let mut plan = Self {
            arms: Vec::new(),
            seeds: experiment.seeds.clone(),
            program: program.identity.clone(),
            runs: experiment.outputs.runs.clone(),
            sets: Vec::new(),
            beginnings: Vec::new(),
            rungs: rungs.to_vec(),
        };
        // Runs on the same data one after the other, so that it is in memory once.
        let mut by_data: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, (_, _, _, recipe)) in resolved.iter().enumerate() {
            by_data.entry(data_text(recipe, true)).or_default().push(i);
        }
        let mut places = vec![(0, 0); resolved.len()];
        for members in by_data.values() {
            let recipes = members.iter().map(|i| &resolved[*i].3);
            for (i, place) in members.iter().zip(plan.add_data(recipes, sink)?) {
                places[*i] = place;
            }
        }
        for ((first, name, settings, recipe), (set, beginning)) in resolved.into_iter().zip(places) {
            let point = Point { settings, recipe, set, beginning };
            match plan.arms.last_mut() {
                Some(arm) if !first => arm.points.push(point),
                _ => plan.arms.push(PlannedArm { name, points: vec![point] }),
            }
        }
        Ok(plan)
    }

    /// Prepares the data that recipes share, and finds out what their runs begin with: for each the index of both.
    fn add_data<'a>(
        &mut self,
        recipes: impl Iterator<Item = &'a Recipe>,
        sink: &dyn Sink,
    ) -> Result<Vec<(usize, usize)>, AblateError> {
        let mut prepared = None;
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut places = Vec::new();
        for recipe in recipes {
            if prepared.is_none() {
                let home = self.runs.join("data").join(&digest(&data_text(recipe, false))[..12]);
                std::fs::create_dir_all(&home).map_err(AblateError::io(&home, "create"))?;
                let path = home.join("lock");
                let lock = File::create(&path).map_err(AblateError::io(&path, "create"))?;
                lock.lock().map_err(AblateError::io(&path, "lock"))?;
                let data = prepare_in(recipe, &home.join("data"), sink)?;
                let (fingerprint, vocab_size) = (data.fingerprint.clone(), data.tokenizer.vocab_size());
                self.sets.push(DataSet { home, fingerprint, vocab_size });
                prepared = Some(data);
            }
            let Some(data) = &prepared else { continue };
            let Recipe { model, quant, lora, .. } = recipe;
            let key = format!("{model:?} {quant:?} {lora:?} {}", recipe.data.seq_len);
            let beginning = match known.get(&key) {
                Some(index) => *index,
                None => {
                    let each = self.seeds.iter().map(|seed| beginning(&seeded(recipe, *seed), data));
                    self.beginnings.push(each.collect::<Result<_, _>>()?);
                    known.insert(key, self.beginnings.len() - 1);
                    self.beginnings.len() - 1
                }
            };
            places.push((self.sets.len() - 1, beginning));
        }
        Ok(places)
    }

    /// The run of an arm at a point with a seed.
    ///
    /// # Errors
    /// If a model that its recipe names cannot be read.
    pub fn run(&self, arm: usize, point: usize, seed: u64) -> Result<FrozenRun, AblateError> {
        let Point { recipe, set, .. } = &self.arms[arm].points[point];
        let mut recipe = seeded(recipe, seed);
        let DataSet { home, fingerprint, .. } = &self.sets[*set];
        let id = run_identity(&recipe, fingerprint, &self.program)?;
        let dir = self.runs.join(&id[..16]);
        (recipe.run.name, recipe.run.out) = (id[..16].to_string(), dir.clone());
        Ok(FrozenRun { id, dir, data_dir: home.join("data"), recipe })
    }

    /// Steps of each rung; none without rungs.
    pub fn rungs(&self) -> &[u64] {
        &self.rungs
    }

    /// The point of a rung in every arm.
    pub(crate) fn point_of_rung(&self, rung: usize) -> usize {
        if rung + 1 == self.rungs.len() { 0 } else { rung + 1 }
    }

    /// The rung whose runs are those of a point.
    fn rung(&self, point: usize) -> Option<usize> {
        let last = self.rungs.len().checked_sub(1)?;
        Some(if point == 0 { last } else { point - 1 })
    }

    /// The step of a rung's run after which the next rung's run goes on from it; none if that begins anew, or there is
    /// none.
    ///
    /// # Errors
    /// If a recipe cannot be written.
    pub(crate) fn kept_step(&self, arm: usize, point: usize) -> Result<Option<u64>, AblateError> {
        let Some(rung) = self.rung(point).filter(|rung| rung + 1 < self.rungs.len()) else { return Ok(None) };
        let of = |rung: usize| self.recipe(arm, self.point_of_rung(rung));
        let shared = shared_steps(of(rung), of(rung + 1))?;
        Ok((shared > 0).then_some(shared))
    }

    /// The run of the rung before with which a run has steps in common, and how many.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn before(
        &self,
        arm: usize,
        point: usize,
        seed: u64,
    ) -> Result<Option<(FrozenRun, u64)>, AblateError> {
        let Some(rung) = self.rung(point).filter(|rung| *rung > 0) else { return Ok(None) };
        let before = self.point_of_rung(rung - 1);
        let Some(shared) = self.kept_step(arm, before)? else { return Ok(None) };
        Ok(Some((self.run(arm, before, seed)?, shared)))
    }

    /// A recipe whose dry run finds the prepared data, and the directory that it may be written to.
    pub fn probe(&self, arm: usize) -> (Recipe, &Path) {
        let Point { recipe, set, .. } = &self.arms[arm].points[0];
        let home = &self.sets[*set].home;
        let mut recipe = recipe.clone();
        recipe.run.out.clone_from(home);
        (recipe, home)
    }

    /// The recipe of an arm at a point, without a seed.
    pub fn recipe(&self, arm: usize, point: usize) -> &Recipe {
        &self.arms[arm].points[point].recipe
    }

    /// Operations of a step of an arm's runs at a point ([`flops_per_step`]), where they are counted.
    pub fn flops_per_step(&self, arm: usize, point: usize) -> Option<f64> {
        let Point { recipe, set, .. } = &self.arms[arm].points[point];
        flops_per_step(recipe, &recipe.model_config(self.sets[*set].vocab_size).ok()?)
    }

    /// Whether runs of an arm are pairs with those of another, each at a point.
    pub fn pairing(&self, arm: (usize, usize), other: (usize, usize)) -> Pairing {
        let of = |(arm, point): (usize, usize)| &self.beginnings[self.arms[arm].points[point].beginning];
        Pairing::of(of(arm).iter().zip(of(other)))
    }
}

/// The points of an arm, each with the recipe that it makes.
pub type ArmRecipes = Vec<(Vec<Setting>, Recipe)>;

/// The recipes of all arms at all of their points, resolved but for their seeds.
///
/// # Errors
/// If one of them is wrong; with its arm.
pub fn recipes(experiment: &Experiment) -> Result<Vec<ArmRecipes>, AblateError> {
    let of = |(i, arm): (usize, &Arm)| {
        let each = experiment.points(i).into_iter().map(|settings| {
            match resolve(experiment, arm.base.as_deref(), &arm.set, &settings) {
                Ok(recipe) => Ok((settings, recipe)),
                Err(source) => Err(AblateError::Arm { arm: arm.name.clone(), source }),
            }
        });
        each.collect::<Result<Vec<_>, _>>()
    };
    experiment.arms.iter().enumerate().map(of).collect()
}

/// The recipe of an arm for fewer steps: its warm-up is that of all steps, everything else that depends on the length of
/// a run, such as the steps of the final decay, what it would be for a run so long.
fn shorter(
    experiment: &Experiment,
    arm: &Arm,
    whole: &Recipe,
    steps: u64,
) -> Result<(Vec<Setting>, Recipe), AblateError> {
    let set = |key: &str, value: u64| Setting { key: key.to_string(), value: value.to_string() };
    let length = vec![set("train.steps", steps)];
    let point = [length.clone(), vec![set("optim.warmup_steps", whole.optim.warmup_steps)]].concat();
    match resolve(experiment, arm.base.as_deref(), &arm.set, &point) {
        Ok(recipe) => Ok((length, recipe)),
        Err(source) => Err(AblateError::Arm { arm: format!("{} for {steps} steps", arm.name), source }),
    }
}

/// The recipe of an arm at a point, with the split of its base.
fn resolve(
    experiment: &Experiment,
    base: Option<&Path>,
    set: &[Setting],
    point: &[Setting],
) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = set.iter().chain(point).map(Setting::text).collect();
    let mut recipe = Recipe::load(base.unwrap_or(&experiment.base), &overrides)?;
    // Held-out text and tokenizer stay the same over seeds.
    recipe.data.split_seed = Some(recipe.split_seed());
    recipe.train.keep_last = 1;
    Ok(recipe)
}

/// A recipe with its seed.
fn seeded(recipe: &Recipe, seed: u64) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.run.seed = seed;
    recipe.data.order_seed = Some(seed);
    recipe
}

/// What data comes of; with `samples` also how samples are made of it.
fn data_text(recipe: &Recipe, samples: bool) -> String {
    let mut data = recipe.data.clone();
    data.order_seed = None;
    if !samples {
        (data.seq_len, data.packing) = (0, Default::default());
    }
    let Recipe { tokenizer, objective, model, .. } = recipe;
    let base = model.base.as_ref();
    format!(
        "{data:?} {tokenizer:?} {base:?} {}",
        if samples { format!("{objective:?}") } else { String::new() }
    )
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
