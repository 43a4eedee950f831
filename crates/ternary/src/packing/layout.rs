//! What a layout is: one [`Layout`] in each layout's file.

/// Where a layout keeps scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalePlace {
    /// An f16 in every block.
    Block,
    /// Before every row, as f32 or f16.
    Row,
    /// One f32 after the tensor.
    Tensor,
}

/// What a layout is.
pub(super) struct Layout {
    /// The name: that of the type in files, with the processor's where one type has two layouts.
    pub(super) name: &'static str,
    /// The name in recipes and on the command line.
    pub(super) option: &'static str,
    /// The type in GGUF files.
    pub(super) ggml: &'static str,
    /// What errors call its bytes.
    pub(super) bytes_of: &'static str,
    /// One line for `--help`: bits a weight, and who loads it.
    pub(super) help: &'static str,
    /// `general.file_type` of files whose projections have it (`enum llama_ftype` of the runtime it comes from).
    pub(super) file_type: u32,
    /// Weights of which a row must be a multiple, and bytes of as many.
    pub(super) block: usize,
    pub(super) bytes: usize,
    pub(super) scales: ScalePlace,
    /// Bytes of a scale: 2 for f16, 4 for f32.
    pub(super) scale_bytes: usize,
    /// Where in a block the scale stands, if it stands there.
    pub(super) scale_at: usize,
    /// Appends the codes of whole blocks, with the f16 scale given.
    pub(super) pack: fn(&[i8], [u8; 2], &mut Vec<u8>),
    /// The codes of whole blocks.
    pub(super) unpack: fn(&[u8], &mut [i8]),
}

/// Bytes after the codes of a tensor with one scale: eight copies of it.
pub(super) const TAIL: usize = 32;

impl Layout {
    /// Bytes of the scale before a row; 0 if there is none.
    pub(super) fn row_scale(&self) -> usize {
        if self.scales == ScalePlace::Row { self.scale_bytes } else { 0 }
    }

    /// Whether scales are stored as f16.
    pub(super) fn is_f16(&self) -> bool {
        self.scale_bytes == 2
    }
}
