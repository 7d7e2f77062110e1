"""Why an upload was refused: a closed set of codes, each with one sentence for the person who uploaded the file.

    sentence(media.code, "fr", media.limit)

The post stores the code, the exceeded limit if there is one, and the English sentence as its `reason`. The exact
finding goes to the log, for the system's operators.
"""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Stable identifiers, for programs and metrics."""

    # Not a file that can be shown
    EMPTY = "empty"
    GONE = "gone"
    UNKNOWN = "unknown"
    HTML = "html"
    ARCHIVE = "archive"
    SOUND = "sound"
    # Valid, but not supported
    TIFF = "tiff"
    RAW = "raw"
    BMP = "bmp"
    ICON = "icon"
    PHOTOSHOP = "photoshop"
    PDF = "pdf"
    POSTSCRIPT = "postscript"
    SVG = "svg"
    JPEG_2000 = "jpeg_2000"
    JPEG_XL = "jpeg_xl"
    JPEG_12_BIT = "jpeg_12_bit"
    JPEG_LOSSLESS = "jpeg_lossless"
    JPEG_ARITHMETIC = "jpeg_arithmetic"
    HEIF_SEQUENCE = "heif_sequence"
    HEIF_CODEC = "heif_codec"
    MATROSKA = "matroska"  # of older posts: they are accepted now
    OTHER_CLIP = "other_clip"
    CLIP_CODEC = "clip_codec"
    NO_VIDEO = "no_video"
    # Broken
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    DECODER_CRASHED = "decoder_crashed"
    # Beyond a limit
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_MANY_SCANS = "too_many_scans"
    TOO_MANY_STREAMS = "too_many_streams"
    TOO_SMALL = "too_small"
    TOO_LONG = "too_long"
    TOO_MUCH_WORK = "too_much_work"
    TOO_MUCH_MEMORY = "too_much_memory"
    TOO_SLOW = "too_slow"
    FRAME_RATE_TOO_HIGH = "frame_rate_too_high"
    OUTPUT_TOO_LARGE = "output_too_large"


LIMITED: Final = frozenset({Code.TOO_MANY_BYTES, Code.TOO_LONG, Code.FRAME_RATE_TOO_HIGH, Code.TOO_SMALL})
"""The codes whose sentences name the limit: megabytes, seconds, frames a second, pixels."""

SENTENCES: Final[dict[str, dict[Code, str]]] = {
    "en": {
        Code.EMPTY: "The file is empty. Choose it and upload it again.",
        Code.GONE: "The file was removed before it could be processed. Upload it again.",
        Code.UNKNOWN: "This is not a supported picture or clip. Upload a JPEG, PNG, GIF, WebP, AVIF or HEIC "
        "picture, or an MP4, MOV, WebM, MKV, AVI or WMV clip.",
        Code.HTML: "This is a web page, not a picture. Save the picture itself from the page and upload that.",
        Code.ARCHIVE: "This is a document or an archive, not a picture. Upload the pictures in it one by one.",
        Code.SOUND: "This is a sound recording. Only pictures and clips can be uploaded.",
        Code.TIFF: "TIFF pictures are not supported. Save the picture as JPEG or PNG and upload that.",
        Code.RAW: "RAW photos are not supported. Export the photo from your camera or photo program as JPEG "
        "and upload that.",
        Code.BMP: "BMP pictures are not supported. Save the picture as PNG or JPEG and upload that.",
        Code.ICON: "Icon files are not supported. Save the icon as PNG and upload that.",
        Code.PHOTOSHOP: "Photoshop documents are not supported. Export the document as JPEG or PNG and upload that.",
        Code.PDF: "PDF documents are not supported. Export the page as JPEG or PNG and upload that.",
        Code.POSTSCRIPT: "PostScript documents are not supported. Export the page as JPEG or PNG and upload that.",
        Code.SVG: "SVG drawings are not supported. Export the drawing as PNG and upload that.",
        Code.JPEG_2000: "JPEG 2000 pictures are not supported. Save the picture as JPEG or PNG and upload that.",
        Code.JPEG_XL: "JPEG XL pictures are not supported. Save the picture as JPEG or PNG and upload that.",
        Code.JPEG_12_BIT: "JPEG pictures with 12 bits a colour are not supported. Save the picture as an "
        "ordinary JPEG, with 8.",
        Code.JPEG_LOSSLESS: "Lossless JPEG pictures are not supported. Save the picture as an ordinary JPEG or as PNG.",
        Code.JPEG_ARITHMETIC: "JPEG pictures with arithmetic coding are not supported. Save the picture as an "
        "ordinary JPEG.",
        Code.HEIF_SEQUENCE: "HEIF image sequences are not supported. Upload one of the pictures, or a clip.",
        Code.HEIF_CODEC: "This HEIF picture is encoded in a way that is not supported. Save it as JPEG and upload it.",
        Code.MATROSKA: "Matroska (MKV) clips were not supported when this was uploaded. Upload it again.",
        Code.OTHER_CLIP: "Clips of this kind are not supported. Convert the clip to MP4 and upload that.",
        Code.CLIP_CODEC: "This clip is encoded in a way that is not supported. Convert it to MP4 with H.264 video.",
        Code.NO_VIDEO: "There is no video in this clip. Check that it plays, and export it again.",
        Code.TRUNCATED: "The file is cut short: its end is missing. Upload the original again.",
        Code.DAMAGED: "The file is damaged and cannot be shown. Open it, save it again and upload the new file.",
        Code.DECODER_CRASHED: "The file is damaged and cannot be decoded. Export it again and upload the new file.",
        Code.TOO_MANY_BYTES: "The file is larger than {limit} MB. Upload a smaller version.",
        Code.TOO_MANY_PIXELS: "It has too many pixels. Upload a smaller version, for example 3840 pixels wide.",
        Code.TOO_MANY_FRAMES: "The animation has too many frames for its size. Make it shorter or smaller, or upload "
        "it as a clip.",
        Code.TOO_MANY_SCANS: "This JPEG takes far too long to decode. Save it again as an ordinary JPEG.",
        Code.TOO_MANY_STREAMS: "The clip has too many tracks. Export it with one picture and one sound track.",
        Code.TOO_SMALL: "The clip is smaller than {limit} pixels. Upload a larger version.",
        Code.TOO_LONG: "The clip is longer than {limit} seconds. Cut it and upload a shorter one.",
        Code.TOO_MUCH_WORK: "The clip is too long for its size. Make it shorter, or export it as 1080p.",
        Code.TOO_MUCH_MEMORY: "The file needs too much memory to decode. Upload a smaller version.",
        Code.TOO_SLOW: "The file takes too long to process. Make a clip shorter, or upload a smaller version.",
        Code.FRAME_RATE_TOO_HIGH: "The clip has more than {limit} frames a second. Export it with 60.",
        Code.OUTPUT_TOO_LARGE: "The clip becomes too large. Make it shorter.",
    },
    "fr": {
        Code.EMPTY: "Le fichier est vide. Choisissez-le à nouveau et renvoyez-le.",
        Code.GONE: "Le fichier a été supprimé avant d’avoir pu être traité. Envoyez-le à nouveau.",
        Code.UNKNOWN: "Ce n’est ni une image ni une vidéo que nous connaissons. Envoyez une image JPEG, PNG, GIF, "
        "WebP, AVIF ou HEIC, ou une vidéo MP4, MOV, WebM, MKV, AVI ou WMV.",
        Code.HTML: "C’est une page web, pas une image. Enregistrez l’image elle-même et envoyez-la.",
        Code.ARCHIVE: "C’est un document ou une archive, pas une image. Envoyez une à une les images qu’elle contient.",
        Code.SOUND: "C’est un enregistrement sonore. Seules les images et les vidéos peuvent être envoyées.",
        Code.TIFF: "Les images TIFF ne sont pas acceptées. Enregistrez l’image en JPEG ou en PNG, puis envoyez-la.",
        Code.RAW: "Les photos RAW ne sont pas acceptées. Exportez la photo en JPEG, puis envoyez-la.",
        Code.BMP: "Les images BMP ne sont pas acceptées. Enregistrez l’image en PNG ou en JPEG, puis envoyez-la.",
        Code.ICON: "Les fichiers d’icône ne sont pas acceptés. Enregistrez l’icône en PNG, puis envoyez-la.",
        Code.PHOTOSHOP: "Les documents Photoshop ne sont pas acceptés. Exportez le document en JPEG ou en PNG.",
        Code.PDF: "Les documents PDF ne sont pas acceptés. Exportez la page en JPEG ou en PNG.",
        Code.POSTSCRIPT: "Les documents PostScript ne sont pas acceptés. Exportez la page en JPEG ou en PNG.",
        Code.SVG: "Les dessins SVG ne sont pas acceptés. Exportez le dessin en PNG, puis envoyez-le.",
        Code.JPEG_2000: "Les images JPEG 2000 ne sont pas acceptées. Enregistrez l’image en JPEG ou en PNG.",
        Code.JPEG_XL: "Les images JPEG XL ne sont pas acceptées. Enregistrez l’image en JPEG ou en PNG.",
        Code.JPEG_12_BIT: "Les images JPEG à 12 bits par couleur ne sont pas acceptées. Enregistrez l’image en "
        "JPEG ordinaire, à 8 bits.",
        Code.JPEG_LOSSLESS: "Les images JPEG sans perte ne sont pas acceptées. Enregistrez l’image en JPEG ordinaire "
        "ou en PNG.",
        Code.JPEG_ARITHMETIC: "Les images JPEG à codage arithmétique ne sont pas acceptées. Enregistrez l’image en "
        "JPEG ordinaire.",
        Code.HEIF_SEQUENCE: "Les séquences d’images HEIF ne sont pas acceptées. Envoyez une des images, ou une vidéo.",
        Code.HEIF_CODEC: "Cette image HEIF est encodée d’une façon qui n’est pas acceptée. Enregistrez-la en JPEG.",
        Code.MATROSKA: "Les vidéos Matroska (MKV) n’étaient pas acceptées lors de cet envoi. Envoyez-la à nouveau.",
        Code.OTHER_CLIP: "Les vidéos de ce format ne sont pas acceptées. Convertissez la vôtre en MP4.",
        Code.CLIP_CODEC: "Cette vidéo est encodée d’une façon qui n’est pas acceptée. Convertissez-la en MP4 (H.264).",
        Code.NO_VIDEO: "Ce fichier ne contient pas de vidéo. Vérifiez qu’il se lit, puis exportez-le à nouveau.",
        Code.TRUNCATED: "Le fichier est incomplet\u202f: sa fin manque. Envoyez à nouveau l’original.",
        Code.DAMAGED: "Le fichier est abîmé et ne peut pas être affiché. Ouvrez-le, enregistrez-le à nouveau, puis "
        "envoyez-le.",
        Code.DECODER_CRASHED: "Le fichier est abîmé et ne peut pas être décodé. Exportez-le à nouveau, puis "
        "envoyez-le.",
        Code.TOO_MANY_BYTES: "Le fichier dépasse {limit} Mo. Réduisez-le, puis envoyez-le.",
        Code.TOO_MANY_PIXELS: "Le fichier a trop de pixels. Réduisez-le, par exemple à 3840 pixels de large.",
        Code.TOO_MANY_FRAMES: "L’animation a trop d’images pour sa taille. Raccourcissez-la ou réduisez-la, ou "
        "envoyez-la comme vidéo.",
        Code.TOO_MANY_SCANS: "Cette image JPEG est beaucoup trop longue à décoder. Enregistrez-la en JPEG ordinaire.",
        Code.TOO_MANY_STREAMS: "La vidéo contient trop de pistes. Exportez-la avec une piste d’image et une de son.",
        Code.TOO_SMALL: "La vidéo fait moins de {limit} pixels. Envoyez une version plus grande.",
        Code.TOO_LONG: "La vidéo dure plus de {limit} secondes. Raccourcissez-la, puis envoyez-la.",
        Code.TOO_MUCH_WORK: "La vidéo est trop longue pour sa taille. Raccourcissez-la, ou exportez-la en 1080p.",
        Code.TOO_MUCH_MEMORY: "Le fichier demande trop de mémoire. Exportez-le en plus petit, puis envoyez-le.",
        Code.TOO_SLOW: "Le fichier est trop long à traiter. Raccourcissez la vidéo, ou exportez-le en plus petit.",
        Code.FRAME_RATE_TOO_HIGH: "La vidéo a plus de {limit} images par seconde. Exportez-la à 60.",
        Code.OUTPUT_TOO_LARGE: "La vidéo devient trop volumineuse. Raccourcissez-la.",
    },
}


def sentence(code: str, language: str = "en", limit: int | None = None) -> str:
    """The message for the person, in the language of a tag such as "fr" or "fr-CA"; English if there is no translation.

    Raises ValueError for an unknown code.
    """
    sentences = SENTENCES.get(language.lower().split("-")[0].split("_")[0], SENTENCES["en"])
    return sentences[Code(code)].format(limit=limit)


def megabytes(size: int) -> int:
    """Bytes in the unit of the sentences."""
    return round(size / (1 << 20))


class Rejected(Exception):
    """The upload itself is invalid, and will be on every attempt: do not retry, report the reason on the post.

    Args:
        detail: what was found, for the log.
        limit: for a code in LIMITED, the limit in the unit of its sentence.
    """

    def __init__(self, code: Code, detail: str, limit: int | None = None) -> None:
        super().__init__(code, detail, limit)
        if (limit is None) == (code in LIMITED):
            raise ValueError(f"{code} {'needs a' if limit is None else 'has no'} limit")
        self.code = code
        self.detail = detail
        self.limit = limit

    @property
    def reason(self) -> str:
        """The sentence in English."""
        return sentence(self.code, limit=self.limit)

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
